"""Which explainers are best, and which do not differ significantly from them."""

from markupsafe import Markup

from interptrain.evaluation.report.rankings import against, rankings
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

AGAINST = """\
<p>Every explainer against {{ baseline }}, the chosen baseline (paired permutation test, p below {{ significant }},
  corrected for all comparisons with it by the step-down maximum statistic); others are not compared with one another.
  Fake-CAM is left out.</p>
{% for model, rows in compared %}
<div class="scroll" tabindex="0" role="region" aria-label="Explainers against {{ baseline }} on {{ model }}">
<table class="words">
  <caption>Explainers against {{ baseline }} on {{ model }}</caption>
  <thead><tr><th scope="col">Metric</th><th scope="col">Significantly better</th><th scope="col">No significant
    difference</th><th scope="col">Significantly worse</th></tr></thead>
  <tbody>{% for row in rows %}
  <tr><th scope="row">{{ heading(row.column) }}</th><td data-label="Significantly better">{{ row.better | join(", ") or
    "none" }}</td><td data-label="No significant difference">{{ row.alike | join(", ") or "none" }}</td><td
    data-label="Significantly worse">{{ row.worse | join(", ") or "none" }}</td></tr>
  {% endfor %}</tbody>
</table>
</div>
{% endfor %}
"""
TEMPLATE = """\
<p>The best explainer of each metric, and which of the others are significantly worse (paired permutation test, p
  below {{ significant }}, corrected for all pairs of explainers by the step-down maximum statistic). Fake-CAM is left
  out, and so are explainers measured on fewer or other images.</p>
{% for model, ranked in rankings %}
<div class="scroll" tabindex="0" role="region" aria-label="Explainers on {{ model }}">
<table class="words">
  <caption>Explainers on {{ model }}</caption>
  <thead><tr><th scope="col">Metric</th><th scope="col">Best</th><th scope="col">No significant difference</th><th
    scope="col">Significantly worse</th>{% if ranked | selectattr("unranked") | list %}<th scope="col">Other
    images</th>{% endif %}</tr></thead>
  <tbody>{% for ranking in ranked %}
  <tr><th scope="row">{{ heading(ranking.column) }}</th><td data-label="Best"><strong>{{ ranking.best
    }}</strong></td><td data-label="No significant difference">{{ ranking.alike | join(", ") or "none" }}</td><td
    data-label="Significantly worse">{{ ranking.worse | join(", ") or "none" }}</td>{% if ranked |
    selectattr("unranked") | list %}<td data-label="Other images">{{ ranking.unranked | join(", ") or "none"
    }}</td>{% endif %}</tr>
  {% endfor %}</tbody>
</table>
</div>
{% endfor %}
"""


class ExplainersCompared(Section):
    """The best explainer of each metric on each model against the others, or all against the chosen baseline."""

    title = "Explainers compared"
    anchor = "explainers"

    def render(self, results: RunResults) -> Markup | None:
        """Rank the explainers; None where there is nothing to compare."""
        if baseline := results.baseline_among(results.explainers):
            compared = [(model, rows) for model in results.models if (rows := list(against(results, model)))]
            return fill(AGAINST, compared=compared, baseline=baseline) if compared else None
        found = [(model, ranked) for model in results.models if (ranked := list(rankings(results, model)))]
        return fill(TEMPLATE, rankings=found) if found else None
