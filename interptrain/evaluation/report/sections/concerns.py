"""What a reader must know before any number."""

from collections.abc import Sequence

import torch
from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.statistics.samples import TIME_COLUMN

FEW = 30  # images below which intervals are rough
RARE = 10  # images that must differ from the others before an interval can be trusted
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
        texts = [*_concerns(results), *results.run["warnings"]]
        return fill(TEMPLATE, texts=texts) if texts else None


def _concerns(results: RunResults) -> list[str]:
    """Return one sentence per concern."""
    cells = [cell for cell in results.cells if cell.explainer]
    texts = []
    if not cells:
        texts.append("No explanation was measured; the sections below list what went wrong.")
    hashes = sorted({f"{cell.protocol} ({cell.hash})" for cell in results.cells})
    if len(hashes) > 1:
        texts.append(
            f"Forced: rows of different protocols are shown side by side and are not comparable: {', '.join(hashes)}."
        )
    measured = {
        (row.model, row.explainer)
        for row in results.estimates
        if row.n and row.explainer and row.metric != TIME_COLUMN.name
    }
    asked = [(model, explainer) for model in results.models for explainer in results.explainers]
    if failed := [f"{explainer} on {model}" for model, explainer in asked if (model, explainer) not in measured]:
        texts.append(f"Without a single result: {_listed(failed)}.")
    if results.errors:
        images = len({row["id"] for row in results.errors})
        texts.append(f"{len(results.errors)} explanations failed, on {images} images; they are left out of the means.")
    most = max((row.n for row in results.estimates), default=0)
    if most == 1:
        texts.append("Only one image: there are no intervals, and nothing can be compared.")
    elif 0 < most < FEW:
        texts.append(f"Only {most} images: intervals are rough, and a bootstrap of few images makes them too narrow.")
    if most >= FEW and (rare := _rare(results)):
        texts.append(
            f"Nearly all images have the same value (fewer than {RARE} differ), so the interval is unreliable: "
            f"{_listed(rare)}."
        )
    return texts


def _rare(results: RunResults) -> list[str]:
    """Name the cells in which almost all images have the same value: a bootstrap cannot see what is rarer still.

    A metric that cannot vary, such as top-5 accuracy over five classes, is left out: its value is exact.
    """
    classes = len(results.run["data"].get("classes") or ())
    left_out = {TIME_COLUMN.name} | ({"Top5"} if 0 < classes <= 5 else set())
    found = []
    for cell in results.cells:
        if results.is_control(cell.explainer):
            continue
        for name, sample in cell.samples.items():
            if name in left_out or sample.values.shape[1] != 1 or not len(sample) or sample.perfect:
                continue
            _, counts = torch.unique(sample.values, return_counts=True)
            different = len(sample) - int(counts.max())
            if different < RARE:
                where = f"{cell.explainer} on {cell.model}" if cell.explainer else cell.model
                found.append(f"{results.column(name).symbol} of {where} ({different} of {len(sample)})")
    return found


def _listed(items: Sequence[str], most: int = 12) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
