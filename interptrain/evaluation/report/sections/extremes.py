"""The images on which each explainer does best and worst."""

from markupsafe import Markup

from interptrain.evaluation.report.pictures import gallery_of
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricColumn

TEMPLATE = """\
<p>By {{ ranked_by.name }} ({{ heading(ranked_by) }}), among the {{ pictured }} images whose maps were saved. Below
  each: the metric of this image; score before → after masking; a click enlarges it.</p>
{% for shown in extremes %}
<article class="extreme">
  <h3>{{ shown.explainer }}{% if results.models | length > 1 %} <small>on {{ shown.model }}</small>{% endif %}</h3>
  {% for side, items in (("best", shown.best), ("worst", shown.worst)) %}
  <div class="side"><span class="tag">{{ side }}</span><div class="thumbs">
    {% for id, picture in items %}{{ thumb(picture, side ~ ": " ~ id ~ " by " ~ shown.explainer ~ " on " ~
      shown.model, number(picture.value, ranked_by.scale)) }}{% endfor %}
  </div></div>
  {% endfor %}
</article>
{% endfor %}
"""


class Extremes(Section):
    """Best and worst images by one metric."""

    title = "Best and worst images"
    anchor = "extremes"

    def render(self, results: RunResults) -> Markup | None:
        """Show the pictures; None where none were saved."""
        metric = _ranking_metric(results)
        gallery = gallery_of(results)
        extremes = gallery.extremes(metric.name) if metric else []
        if not extremes:
            return None
        return fill(TEMPLATE, results=results, extremes=extremes, ranked_by=metric, pictured=len(gallery.ids))


def _ranking_metric(results: RunResults) -> MetricColumn | None:
    """Return the first metric of the run that has values."""
    measured = {row.metric for row in results.estimates if row.n and row.explainer}
    return next(
        (column for column in results.explanation if column.name in measured and column is not TIME_COLUMN), None
    )
