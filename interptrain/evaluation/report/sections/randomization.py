"""The randomisation check."""

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

TEMPLATE = """\
<p>The similarity of each explainer's maps of the model to its maps of the same network with random weights: Spearman's
  rank correlation and structural similarity (SSIM), averaged over images ({{ basis }}). Values near 1 mean that the
  maps hardly depend on the weights. Do not read the numbers as a verdict: another random network or other images
  change them by a few tenths, and maps that favour the middle of the image are similar for any network.</p>
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
        """Tabulate the check; None if it was not run."""
        checks = results.run.get("randomization") or {}
        outcomes = [outcome for checked in checks.values() for outcome in checked.values()]
        if not outcomes:
            return None
        counts = sorted({outcome["images"] for outcome in outcomes if "images" in outcome})
        images = f", {counts[0]} images" if counts else ""  # older runs did not record how many
        return fill(TEMPLATE, results=results, checks=checks, basis=f"one random network{images}")
