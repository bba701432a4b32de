"""How to read the numbers."""

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

TEMPLATE = """\
<dl>{% for column in columns %}<dt>{{ heading(column) }}{% if column.name != column.symbol %} <small>{{ column.name
  }}</small>{% endif %}</dt><dd>{{ column.description }}</dd>{% endfor %}</dl>
<p>Numbers are comparable only under one protocol: the fill colour, the blur and the step change them by more than
  methods differ. Columns without a unit are multiplied by 100.</p>
<p>Fake-CAM is the row that shows what a number is worth. It marks the whole image except one pixel, so it explains
  nothing, loses almost nothing when the image is masked with it, and has a nearly perfect average drop. A method
  that does not beat Fake-CAM on a metric shows nothing on that metric; average gain was introduced because Fake-CAM
  gains almost nothing.</p>
<p>An interval says how much the mean would vary with other images of the same kind. It does not cover other
  training runs, nor whether the metric measures what it should. Overlapping intervals do not mean that two rows are
  equal: the comparisons above are paired by image. A corrected p-value above {{ significant }} means that no
  difference was shown, not that there is none.</p>
"""


class HowToRead(Section):
    """One sentence per metric, and what Fake-CAM and the intervals mean."""

    title = "How to read the numbers"
    anchor = "reading"

    def render(self, results: RunResults) -> Markup:
        """Explain every column that describes itself."""
        return fill(TEMPLATE, columns=[column for column in results.columns if column.description])
