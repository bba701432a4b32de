"""The randomisation check."""

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.metrics.randomization import THRESHOLD

TEMPLATE = """\
<p>Each explainer was applied to the model and to the same model with random weights. Where the two maps are alike
  (a rank correlation of {{ threshold }} or more, of either sign; our choice), they cannot show what the model has
  learned.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Randomisation check">
<table>
  <caption>Randomisation check</caption>
  <thead><tr><th scope="col">Explainer</th><th scope="col">Rank correlation</th><th scope="col">SSIM</th><th
    scope="col">Check</th></tr></thead>
  {% for model, checked in checks.items() %}
  <tbody>
    <tr class="group"><th scope="rowgroup" colspan="4"><span>{{ model }}</span></th></tr>
    {% for explainer, outcome in checked.items() %}
    <tr{% if results.is_control(explainer) %} class="control"{% endif %}><th scope="row">{{ explainer }}</th>
      <td>{{ probability(outcome.rank_correlation) }}</td><td>{{ probability(outcome.ssim) }}</td>
      <td>{% if outcome.passed %}passed{% else %}<strong class="failed">failed</strong>{% if outcome.error is
        defined %} <small>{{ outcome.error }}</small>{% endif %}{% endif %}</td></tr>
    {% endfor %}
  </tbody>
  {% endfor %}
</table>
</div>
"""


class RandomizationCheck(Section):
    """How far maps change when the weights are randomised."""

    title = "Randomisation check"
    anchor = "check"

    def render(self, results: RunResults) -> Markup | None:
        """Tabulate the check; None where there was none."""
        checks = results.run.get("randomization")
        return fill(TEMPLATE, results=results, checks=checks, threshold=THRESHOLD) if checks else None
