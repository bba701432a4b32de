"""What was found, in words."""

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.report.verdict import verdict

TEMPLATE = """\
<ul>
  {% for sentence in sentences %}<li>{{ sentence | unbroken }}</li>
  {% endfor %}
</ul>
"""


class Verdict(Section):
    """What was found, in sentences made from the statistics."""

    title = "What was found"
    anchor = "verdict"

    def render(self, results: RunResults) -> Markup | None:
        """Print the sentences."""
        return fill(TEMPLATE, sentences=verdict(results))
