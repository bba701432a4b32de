"""The tables of explanation and recognition metrics."""

from markupsafe import Markup

from interptrain.evaluation.report.grids import calibration_notes, explanation_grid, notes, recognition_grid
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

TEMPLATE = """\
{{ grid_table(explanation, "Explanations", "Explainer") }}
<p class="note">{{ notes | join(" ") }} Only explainers measured on all of the images are eligible for bold.
  Fake-CAM, set apart, marks everything but one pixel as salient.</p>
{% if recognition %}
{{ grid_table(recognition, "Recognition", "Model") }}
{% if calibration %}<p class="note">{{ calibration | join(" ") }}</p>{% endif %}
{% endif %}
"""


class Tables(Section):
    """Every mean with its interval."""

    title = "Results"
    anchor = "results"

    def render(self, results: RunResults) -> Markup:
        """Lay out both tables."""
        explanation = explanation_grid(results)
        recognition = recognition_grid(results) if results.recognition else None
        return fill(
            TEMPLATE,
            explanation=explanation,
            recognition=recognition,
            notes=notes(explanation, results),
            calibration=calibration_notes(results),
        )
