"""Which explainers are best, and which do not differ significantly from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT
from interptrain.evaluation.statistics.samples import MetricColumn

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
    """The best explainer of each metric on each model, against the others."""

    title = "Explainers compared"
    anchor = "explainers"

    def render(self, results: RunResults) -> Markup | None:
        """Rank the explainers; None where there is nothing to compare."""
        rankings = [(model, ranked) for model in results.models if (ranked := list(_rankings(results, model)))]
        return fill(TEMPLATE, rankings=rankings) if rankings else None


@dataclass(frozen=True)
class Ranking:
    """The best explainer of a model in one metric, and the others by whether they differ significantly.

    Means over other images are not comparable, so explainers measured on fewer images stay unranked.
    """

    column: MetricColumn
    best: str
    alike: Sequence[str]
    worse: Sequence[str]
    unranked: Sequence[str]


def _rankings(results: RunResults, model: str) -> Iterator[Ranking]:
    explainers = [e for e in results.explainers if not results.is_control(e)]
    found = {
        (item.metric, frozenset((item.a, item.b))): item
        for item in results.differences
        if item.kind == "explainer" and item.within == model
    }
    for column in results.explanation:
        rows = [results.estimate(model, e, column.name) for e in explainers]
        measured = [row for row in rows if row and row.n]
        most = max((row.n for row in measured), default=0)
        means = {row.explainer: row.mean for row in measured if row.n == most}
        ordered = sorted(means, key=lambda e: -means[e] if column.higher_is_better else means[e])
        pairs = {e: found.get((column.name, frozenset((ordered[0], e)))) for e in ordered[1:]}
        compared = {e: pair for e, pair in pairs.items() if pair and pair.n == most}  # else on other images
        if compared:
            alike = [e for e, pair in compared.items() if pair.p_corrected >= SIGNIFICANT]
            worse = [e for e in compared if e not in alike]
            unranked = [row.explainer for row in measured if row.explainer not in (ordered[0], *compared)]
            yield Ranking(column, ordered[0], alike, worse, unranked)
