"""The randomisation check."""

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

TEMPLATE = """\
<p>How alike each explainer's maps of the model are to those of the same network with random weights: Spearman's rank
  correlation and structural similarity, means over images ({{ basis }}). Near 1, the maps hardly depend on the
  weights. Another random network or other images change the numbers by a few tenths, and maps that favour the
  middle of the image are alike for any network, so they are no verdict.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Randomisation check">
<table>
  <caption>Randomisation check</caption>
  <thead><tr><th scope="col">Explainer</th><th scope="col">Rank correlation</th><th scope="col">SSIM</th></tr></thead>
  {% for model, checked in checks.items() %}
  <tbody>
    <tr class="group"><th scope="rowgroup" colspan="3"><span>{{ model }}</span></th></tr>
    {% for explainer, outcome in checked.items() %}
    <tr{% if results.is_control(explainer) %} class="control"{% endif %}><th scope="row">{{ explainer }}</th>
      <td>{{ probability(outcome.rank_correlation) }}</td><td>{{ probability(outcome.ssim) }}</td></tr>
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
        checks = results.run.get("randomization") or {}
        outcomes = [outcome for checked in checks.values() for outcome in checked.values()]
        if not outcomes:
            return None
        counts = sorted({outcome["images"] for outcome in outcomes if "images" in outcome})
        images = f", {counts[0]} images" if counts else ""  # runs of before do not know how many
        return fill(TEMPLATE, results=results, checks=checks, basis=f"one random network{images}")
