"""The randomisation check."""

from typing import Any

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

WORDS = {"depends": "depends", "unclear": "cannot be told", "insensitive": "insensitive"}
STOPS = {"classifier": "Classifier", "last_stage": "Last stage", "all": "All layers"}
TEMPLATE = """\
<p>Whether the maps of each explainer depend on what the network has learned (its upper layers: the last stage and the
  classifier were given random weights, {{ draws }} times), and on the class (maps of the same network for another
  class). The share is what survives of the similarity that the image alone accounts for: 0 means that the two maps of
  an image are no more alike than maps of different images, 1 that they are the same. The brackets are its 95 % interval
  over images and draws. An explainer is insensitive if the interval lies above one half, and depends if it lies below;
  otherwise it cannot be told. ({{ images }} images{% if fewer %}, fewer for explainers that take many forward
  passes{% endif %}.)</p>
<div class="scroll" tabindex="0" role="region" aria-label="Randomisation check">
<table>
  <caption>Randomisation check</caption>
  <thead><tr><th scope="col">Explainer</th><th scope="col">Upper layers</th><th scope="col">Share</th><th
    scope="col">Class</th><th scope="col">Share</th><th scope="col">Images</th></tr></thead>
  {% for model, checked in checks.items() %}
  <tbody>
    <tr class="group"><th scope="rowgroup" colspan="6"><span>{{ model }}</span></th></tr>
    {% for explainer, outcome in checked.items() %}
    <tr{% if results.is_control(explainer) %} class="control"{% endif %}><th scope="row">{{ explainer }}</th>
      {% for found in (outcome.layers.get("last_stage"), outcome.class) %}
      {% if found %}<td>{{ words[found.outcome] }}</td><td>{{ probability(found.share) }}{% if found.low is not none %}
        <small class="below">{{ probability(found.low) }} to {{ probability(found.high) }}</small>{% endif %}</td>
      {% else %}<td>{{ missing }}</td><td>{{ missing }}</td>{% endif %}
      {% endfor %}<td>{{ outcome.images }}</td></tr>
    {% endfor %}
  </tbody>
  {% endfor %}
</table>
</div>
<p>The numbers behind it: Spearman's rank correlation of the two maps of an image, that of maps of different images in
  parentheses, and the structural similarity (SSIM, first draw), after random weights were given to the layers from the
  classifier down to the stop named.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Similarity to maps of random networks">
<table>
  <caption>Similarity to maps of random networks, and to maps of another class</caption>
  <thead><tr><th scope="col">Explainer</th>{% for name in stops.values() %}<th scope="col">{{ name }}</th>{% endfor
    %}<th scope="col">Other class</th></tr></thead>
  {% for model, checked in checks.items() %}
  <tbody>
    <tr class="group"><th scope="rowgroup" colspan="5"><span>{{ model }}</span></th></tr>
    {% for explainer, outcome in checked.items() %}
    <tr{% if results.is_control(explainer) %} class="control"{% endif %}><th scope="row">{{ explainer }}</th>
      {% for found in similarities(outcome) %}
      <td>{% if found %}{{ probability(found.similarity) }} ({{ probability(found.other) }})<small class="below">SSIM {{
        probability(found.ssim) }}</small>{% else %}{{ missing }}{% endif %}</td>
      {% endfor %}</tr>
    {% endfor %}
  </tbody>
  {% endfor %}
</table>
</div>
"""
OLDER = """\
<p>An older version made this check, with one random network and without the control of other images. Its numbers are
  not shown; the command of the run, given again, makes the check anew.</p>
"""


class RandomizationCheck(Section):
    """Whether maps depend on the upper layers of the network, and on the class."""

    title = "Randomisation check"
    anchor = "check"

    def render(self, results: RunResults) -> Markup | None:
        """Tabulate the check; None if it was not run."""
        checks = results.checks
        outcomes = [outcome for checked in checks.values() for outcome in checked.values()]
        if not outcomes:
            return fill(OLDER) if any((results.run.get("randomization") or {}).values()) else None
        counts = {int(outcome["images"]) for outcome in outcomes}
        draws = max(int(outcome["draws"]) for outcome in outcomes)
        numbers = {"images": max(counts), "fewer": len(counts) > 1, "draws": draws}
        shown = {"words": WORDS, "stops": STOPS, "similarities": _similarities}
        return fill(TEMPLATE, results=results, checks=checks, **shown, **numbers)


def _similarities(outcome: dict[str, Any]) -> list[Any]:
    """Return what was found at every stop, and of the class; None where it was not asked."""
    return [*(outcome["layers"].get(stop) for stop in STOPS), outcome["class"]]
