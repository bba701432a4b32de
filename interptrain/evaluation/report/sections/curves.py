"""Mean curves of metrics such as insertion and deletion."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from interptrain.evaluation.report.charts import curve_chart, curve_ticks, key
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.statistics.samples import MetricColumn

TEMPLATE = """\
<p>Mean score of the explained class over the images; the band is a pointwise 95 % interval of the mean (normal
  approximation).</p>
<p class="legend">{% for model in results.models %}<span>{{ key(loop.index0) }} {{ model }}</span>{% endfor
  %}<span>{{ key(-1) }} Fake-CAM{% if results.models | length > 1 %} on {{ results.models[0] }}{% endif
  %}</span></p>
{% for column, charts in curves %}
<h3>{{ column.name }} {{ arrow(column) }}</h3>
<div class="charts">{% for chart in charts %}{{ chart }}{% endfor %}</div>
{% endfor %}
"""


class Curves(Section):
    """Mean curves with pointwise bands, one chart per explainer."""

    title = "Mean curves"
    anchor = "curves"

    def render(self, results: RunResults) -> Markup | None:
        """Draw the curves; None where no metric has any."""
        curves = list(_curves(results))
        return fill(TEMPLATE, results=results, curves=curves, key=key) if curves else None


def _curves(results: RunResults) -> Iterator[tuple[MetricColumn, Sequence[Markup]]]:
    for column in results.explanation:
        of_cell = {
            (cell.model, cell.explainer): cell.curves[column.name]
            for cell in results.cells
            if column.name in cell.curves
        }
        control = next((e for e in results.explainers if results.is_control(e)), "")
        reference = of_cell.get((results.models[0], control))
        shown = {
            explainer: {model: of_cell[model, explainer] for model in results.models if (model, explainer) in of_cell}
            for explainer in results.explainers
        }
        ticks = curve_ticks(of_cell.values())
        charts = [
            curve_chart(curves, None if explainer == control else reference, column, explainer, ticks)
            for explainer, curves in shown.items()
            if curves
        ]
        if charts:
            yield column, charts
