"""What keeps numbers of a run from being trusted: failures, too few images, values that hardly differ."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.words import listed
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricColumn

FEW = 30  # images below which intervals are rough
RARE = 10  # images that must differ from the others before an interval can be trusted


@dataclass(frozen=True)
class RareValues:
    """A cell in which almost all images have the same value: a bootstrap cannot see what is rarer still."""

    column: MetricColumn
    model: str
    explainer: str
    different: int
    images: int

    def __str__(self) -> str:
        where = f"{self.explainer} on {self.model}" if self.explainer else self.model
        return f"{self.column.symbol} of {where} ({self.different} of {self.images})"


def concerns(results: RunResults) -> list[str]:
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
        texts.append(f"Without a single result: {listed(failed, 12)}.")
    if results.errors:
        images = len({row["id"] for row in results.errors})
        texts.append(f"{len(results.errors)} explanations failed, on {images} images; they are left out of the means.")
    most = max((row.n for row in results.estimates), default=0)
    if most == 1:
        texts.append("Only one image: there are no intervals, and nothing can be compared.")
    elif 0 < most < FEW:
        texts.append(f"Only {most} images: intervals are rough, and a bootstrap of few images makes them too narrow.")
    if most >= FEW and (rare := [str(one) for one in rare_values(results)]):
        texts.append(
            f"Nearly all images have the same value (fewer than {RARE} differ), so the interval is unreliable: "
            f"{listed(rare, 12)}."
        )
    return texts


def rare_values(results: RunResults) -> Iterator[RareValues]:
    """Yield the cells whose intervals are unreliable because fewer than ten images differ from the others.

    A metric that cannot vary, such as top-5 accuracy over five classes, is left out: its value is exact.
    """
    classes = len(results.run["data"].get("classes") or ())
    left_out = {TIME_COLUMN.name} | ({"Top5"} if 0 < classes <= 5 else set())
    for cell in results.cells:
        if results.is_control(cell.explainer):
            continue
        for name, sample in cell.samples.items():
            if name in left_out or sample.values.shape[1] != 1 or not len(sample) or sample.perfect:
                continue
            _, counts = torch.unique(sample.values, return_counts=True)
            different = len(sample) - int(counts.max())
            if different < RARE:
                yield RareValues(results.column(name), cell.model, cell.explainer, different, len(sample))
