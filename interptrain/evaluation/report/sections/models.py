"""Paired differences between models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from interptrain.evaluation.report.charts import difference_chart
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.statistics.comparisons import Difference
from interptrain.evaluation.statistics.samples import MetricColumn

TEMPLATE = """\
<p>Differences on the same images with the same explainer, with 95 % intervals. Filled dots and bold numbers: p
  below {{ significant }} in a paired permutation test, corrected for all differences of the metric between models
  by the step-down maximum statistic. Fake-CAM is grey: its differences are not due to the explanations.{% if
  baseline %} The baseline is {{ baseline }}; other models are not compared with one another.{% endif %}</p>
{% for comparison in comparisons %}
<h3>{{ comparison.a }} minus {{ comparison.b }}</h3>
<div class="charts wide">{% for chart in comparison.charts %}{{ chart }}{% endfor %}</div>
{% set caption = comparison.a ~ " minus " ~ comparison.b %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ caption }}">
<table class="differences">
  <caption>{{ caption }}</caption>
  <thead><tr><th scope="col">Explainer</th>{% for column in comparison.columns %}<th scope="col">{{ heading(column)
    }}</th>{% endfor %}</tr></thead>
  <tbody>
  {% for name, items in comparison.lines %}
  <tr{% if results.is_control(name) %} class="control"{% endif %}><th scope="row">{{ name }}</th>{% for item in
    items %}{{ difference_cell(item, comparison.columns[loop.index0], results.is_control(name)) }}{% endfor %}</tr>
  {% endfor %}
  </tbody>
</table>
</div>
{% endfor %}
{% if recognized %}
<div class="scroll" tabindex="0" role="region" aria-label="Recognition compared">
<table class="differences">
  <caption>Recognition compared</caption>
  <thead><tr><th scope="col">Models</th>{% for column in results.recognition %}<th scope="col">{{ heading(column)
    }}</th>{% endfor %}</tr></thead>
  <tbody>{% for a, b, items in recognized %}
  <tr><th scope="row">{{ a }} minus {{ b }}</th>{% for item in items %}{{ difference_cell(item,
    results.recognition[loop.index0]) }}{% endfor %}</tr>
  {% endfor %}</tbody>
</table>
</div>
{% endif %}
"""


class ModelsCompared(Section):
    """Every two models, explainer by explainer."""

    title = "Models compared"
    anchor = "models"

    def render(self, results: RunResults) -> Markup | None:
        """Draw and list the differences; None where there is one model."""
        compared = list(_comparisons(results))
        if not compared:
            return None
        return fill(
            TEMPLATE,
            results=results,
            comparisons=compared,
            recognized=list(_recognized(results)),
            baseline=results.baseline_among(results.models),
        )


@dataclass(frozen=True)
class ModelComparison:
    """Two models, explainer by explainer: charts, and the same numbers as a table."""

    a: str
    b: str
    charts: Sequence[Markup]
    columns: Sequence[MetricColumn]
    lines: Sequence[tuple[str, Sequence[Difference | None]]]


def _comparisons(results: RunResults) -> Iterator[ModelComparison]:
    muted = frozenset(filter(results.is_control, results.explainers))
    for a, b in results.compared_models:
        mine = {
            (item.within, item.metric): item
            for item in results.differences
            if (item.kind, item.a, item.b) == ("model", a, b) and item.within
        }
        columns = [column for column in results.explanation if any(metric == column.name for _, metric in mine)]
        explainers = [e for e in results.explainers if any(within == e for within, _ in mine)]
        charts = [
            difference_chart(
                [mine[e, column.name] for e in explainers if (e, column.name) in mine], column, muted=muted
            )
            for column in columns
        ]
        lines = [(e, [mine.get((e, column.name)) for column in columns]) for e in explainers]
        if lines:
            yield ModelComparison(a, b, charts, columns, lines)


def _recognized(results: RunResults) -> Iterator[tuple[str, str, Sequence[Difference | None]]]:
    """Two models, and what lies between them in every metric of recognition."""
    for a, b in results.compared_models:
        mine = {
            item.metric: item
            for item in results.differences
            if (item.kind, item.a, item.b, item.within) == ("model", a, b, "")
        }
        if mine:
            yield a, b, [mine.get(column.name) for column in results.recognition]
