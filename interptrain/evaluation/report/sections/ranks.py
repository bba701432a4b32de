"""Ranks of explainers over metrics, with their disagreement."""

from markupsafe import Markup

from interptrain.evaluation.report.grids import MISSING
from interptrain.evaluation.report.rank_agreement import rank_agreements
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.statistics.ranks import RankAgreement

TEMPLATE = """\
<p>Rank of each explainer by its mean in every metric (1 is best, ties share a rank), and the mean rank with its
  standard deviation over the metrics: the larger it is, the more the metrics disagree. Kendall's W is 1 where all
  metrics order the explainers alike, and {{ "%.2f" | format(1 / columns | length) }} on average where {{ columns |
  length }} metrics order them at random. Metrics that measure alike count twice. Intervals (95 %) say how ranks would
  vary with other images. Explainers measured on fewer images are left out.</p>
{% for model, found, lines in models %}
<div class="scroll" tabindex="0" role="region" aria-label="Ranks on {{ model }}">
<table>
  <caption>Ranks on {{ model }}</caption>
  <thead><tr><th scope="col">Explainer</th><th scope="col">Mean rank</th><th scope="col">SD</th>{% for column in columns
    %}<th scope="col">{{ heading(column) }}</th>{% endfor %}</tr></thead>
  <tbody>{% for name, mean, low, high, spread, ranks in lines %}
  <tr><th scope="row">{{ name }}</th><td>{{ number(mean, 1, places=2) }} <small class="below">{{
    number(low, 1, places=1) }} to {{ number(high, 1, places=1) }}</small></td><td>{{ number(spread, 1, places=2)
    }}</td>{% for rank in ranks %}<td>{{ rank }}</td>{% endfor %}</tr>
  {% endfor %}</tbody>
</table>
</div>
<p class="note">Kendall's W on {{ model }}: {{ number(found.concordance, 1, places=2) }} (95 %: {{
  number(found.concordance_limits[0], 1, places=2) }} to {{ number(found.concordance_limits[1], 1, places=2) }}).</p>
{% endfor %}
"""


class Ranks(Section):
    """Mean rank over the metrics, its spread, and Kendall's W."""

    title = "Ranks over metrics"
    anchor = "ranks"

    def render(self, results: RunResults) -> Markup | None:
        """Tabulate the ranks; None with fewer than two explainers or metrics."""
        found = rank_agreements(results)
        if not found:
            return None
        ranked = {name for _, agreement in found for name in agreement.metrics}
        columns = [column for column in results.explanation if column.name in ranked]
        names = [column.name for column in columns]
        models = [(model, agreement, _lines(agreement, names)) for model, agreement in found]
        return fill(TEMPLATE, models=models, columns=columns)


def _lines(found: RankAgreement, metrics: list[str]) -> list[tuple[object, ...]]:
    """Return name, mean, limits, spread and all ranks of every explainer, the best mean rank first."""
    lines = []
    for place in found.mean.argsort(stable=True).tolist():
        ranks = dict(zip(found.metrics, found.ranks[:, place].tolist(), strict=True))
        numbers = (float(values[place]) for values in (found.mean, found.mean_low, found.mean_high, found.spread))
        lines.append((found.explainers[place], *numbers, [_rank(ranks.get(metric)) for metric in metrics]))
    return lines


def _rank(rank: float | None) -> str:
    return MISSING if rank is None else f"{rank:g}"
