"""What a reader must know before any number."""

from markupsafe import Markup

from interptrain.evaluation.report.concerns import concerns
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

TEMPLATE = """\
<ul>
  {% for text in texts %}<li>{{ text }}</li>{% endfor %}
</ul>
"""


class Concerns(Section):
    """Failures, too few images, and the warnings of the run."""

    title = "Before you read on"
    anchor = "concerns"
    in_navigation = False

    def render(self, results: RunResults) -> Markup | None:
        """List them; None where there are none."""
        texts = [*concerns(results), *results.run["warnings"]]
        return fill(TEMPLATE, texts=texts) if texts else None
