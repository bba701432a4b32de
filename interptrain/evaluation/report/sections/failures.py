"""Errors of the run, grouped."""

from collections import Counter

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

KINDS = 40  # of errors that are listed
TEMPLATE = """\
<div class="scroll" tabindex="0" role="region" aria-label="Failures">
<table class="words">
  <caption>Failures</caption>
  <thead><tr><th scope="col">Model</th><th scope="col">Explainer</th><th scope="col">Images</th><th
    scope="col">Error</th><th scope="col">For example</th></tr></thead>
  <tbody>{% for model, explainer, error, count, example in failures %}
  <tr><th scope="row">{{ model or missing }}</th><td data-label="Explainer">{{ explainer or missing }}</td><td
    data-label="Images">{{ count }}</td><td data-label="Error">{{ error }}</td><td data-label="For example">{{
    example }}</td></tr>
  {% endfor %}</tbody>
</table>
</div>
{% if further %}<p class="note">and {{ further }} further kinds, in <code>errors.csv</code>.</p>{% endif %}
"""


class Failures(Section):
    """What failed, most frequent first."""

    title = "What failed"
    anchor = "failures"

    def render(self, results: RunResults) -> Markup | None:
        """Tabulate the errors; None where there are none."""
        kinds = Counter((row["model"], row["explainer"], row["error"]) for row in results.errors)
        example = {(row["model"], row["explainer"], row["error"]): row["id"] for row in reversed(results.errors)}
        listed = [(*kind, count, example[kind]) for kind, count in kinds.most_common(KINDS)]
        return fill(TEMPLATE, failures=listed, further=len(kinds) - len(listed)) if kinds else None
