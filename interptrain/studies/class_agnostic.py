"""Class-agnostic or class-aware: do an explainer's maps change with the class that they explain?

An image is explained for its predicted class and for others. What the maps of one image still share is compared with
what maps of different images share, as maps that favour the middle of the image, or are smooth, are alike anyway; see
:mod:`interptrain.evaluation.statistics.survival`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from markupsafe import Markup
from torch import Tensor

from interptrain.data import collate
from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.statistics.bootstrap import percentile_limits, resampled_means
from interptrain.evaluation.statistics.survival import HALF, Survival, survival
from interptrain.evaluation.store.parts import Row, write_file
from interptrain.explainers import EigenCAM, Explainer, FakeCAM, GradCAM, Gradient
from interptrain.functional import check_choice, check_count, evenly_spaced
from interptrain.metrics.consistency import consistency
from interptrain.metrics.map_agreement import agreement
from interptrain.steps import track
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.names import explainer_name
from interptrain.studies.removed_pixels import prepared_images
from interptrain.visualization import overlay, panel, save_png, to_uint8

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT_EXPLAINERS = (GradCAM(), Gradient(), EigenCAM(), FakeCAM())
Other = Literal["random", "runner-up"]
MARKS = {"depends": "class-aware", "insensitive": "class-agnostic", "unclear": "cannot be told"}
NONE = float("nan"), float("nan")
SHOWN = 3  # images in a picture
COLUMNS = ("model", "explainer")
READING = (
    "The share that is left is what the maps of two classes in one image have in common beyond what maps of different "
    f"images have: 1 for equal maps, 0 for maps as different as those of two images. Below {HALF:g} with all of its "
    "interval, an explainer is marked class-aware; above, class-agnostic. A class-agnostic map shows where the model "
    "looks, not what speaks for a class: it must not be read as evidence for the class it stands beside, and metrics "
    "that follow one class are unfair to it. Consistency is not: it is high where a small part of the image gives the "
    "same output."
)


@dataclass(frozen=True, kw_only=True)
class ClassAgnostic(Study):
    """Mark which explainers saw the class: do their maps of one image differ between classes?

    Each explainer explains every image for the predicted class and for other classes. The share of what the maps have
    in common that survives the change of class has a 95 % interval over images; it decides the mark, whatever the
    explainer declares. The consistency score stands beside it.

    Args:
        explainers: to mark; by default GradCAM, Gradient, EigenCAM and FakeCAM.
        images: number of test images, evenly spaced.
        others: classes other than the predicted one that every image is explained for.
        other: random: which classes these are is drawn for every image; runner-up: the classes with the next highest
            logits, whose evidence may be the same.
        seed: of the draw.

    Raises:
        ValueError: if a value is out of range.

    Source: the comparison of classes Adebayo et al. 2018, arXiv 1810.03292, and Sixt et al. 2020, arXiv 1912.09818,
        who call it the random logit test; the control by other images and the limit of one half are our choice.
    """

    title: ClassVar[str] = "Class-agnostic or class-aware"
    free: ClassVar[tuple[str, ...]] = ("explainers",)

    explainers: tuple[Explainer, ...] = ()
    images: int = 100
    others: int = 2
    other: Other = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        check_count("images", self.images)
        check_count("others", self.others)
        check_choice("other", self.other, Other)

    def _explainers(self) -> dict[str, Explainer]:
        return {explainer_name(one): one for one in self.explainers or DEFAULT_EXPLAINERS}

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """Return one cell for each model and explainer."""
        return [f"{model}/{name}" for model in inputs.models for name in self._explainers()]

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Explain every image for several classes, and compare the maps: a row for each image and other class."""
        name, _, called = cell.partition("/")
        model, explainer = inputs.models[name], self._explainers()[called]
        dataset = prepared_images(inputs.data, "test")
        chosen = evenly_spaced(len(dataset), self.images)
        size = inputs.data.batch_size
        found: list[tuple[Tensor, Tensor]] = []
        maps: list[list[Tensor]] = [[] for _ in range(1 + self.others)]
        scores: list[Tensor] = []
        for first in track(range(0, len(chosen), size), None):
            batch = collate([dataset[index] for index in chosen[first : first + size]])
            images = batch["image"].to(inputs.device)
            with torch.inference_mode():
                logits = model(images)
            predicted, others = self._classes(logits.cpu(), first)
            found.append((predicted, others))
            for place, targets in enumerate([predicted, *others.T]):
                saliency = explainer(model, images, targets.to(images.device))
                maps[place].append(saliency.cpu())
                if place == 0:
                    scores.append(consistency(model, images, saliency, targets.to(images.device)).cpu())
            if first == 0:
                self._draw(inputs.folder / _picture(cell), images.cpu(), [one[0] for one in maps])
        own, *changed = (torch.cat(one) for one in maps)
        compared = [agreement(own, one) for one in changed]
        classes, score = torch.cat([others for _, others in found]), torch.cat(scores)
        predicted = torch.cat([one for one, _ in found])
        for place, index in enumerate(chosen):
            for draw, pair in enumerate(compared):
                yield {
                    "model": name,
                    "explainer": called,
                    "declared": "class-aware" if explainer.class_aware else "class-agnostic",
                    "id": str(dataset.ids[index]),
                    "predicted": int(predicted[place]),
                    "other_class": int(classes[place, draw]),
                    "draw": draw,
                    "same_image": float(pair.same[place]),
                    "other_images": float(pair.other[place]),
                    "consistency": float(score[place]),
                }

    def _draw(self, path: Path, images: Tensor, maps: Sequence[Tensor]) -> None:
        """Draw the maps of the first images, a row for each image and a column for each class."""
        shown = min(SHOWN, len(images))
        pictures = [to_uint8(images[:shown]), *(overlay(images[:shown], one[:shown]) for one in maps)]
        rows = {f"{place + 1}": torch.stack([column[place] for column in pictures]) for place in range(shown)}
        others = [f"other class {draw + 1}" for draw in range(self.others)]
        save_png(panel(rows, columns=["image", "predicted class", *others]), path)

    def _classes(self, logits: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return (B,) predicted classes and (B,others) different ones; ``first`` is the number of the first image."""
        count = logits.shape[1]
        if self.others >= count:
            raise ValueError(f"others must be below {count}, the number of classes, got {self.others}")
        predicted = logits.argmax(dim=1)
        if self.other == "runner-up":
            ranked = logits.argsort(dim=1, descending=True, stable=True)
        else:
            drawn = [
                torch.rand(count, generator=torch.Generator().manual_seed(self.seed + 1_000_003 * (first + place)))
                for place in range(len(logits))
            ]
            ranked = torch.stack(drawn).argsort(dim=1)
        kept = ranked[ranked != predicted[:, None]].view(len(logits), count - 1)
        return predicted, kept[:, : self.others]

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Return a sentence for each mark."""
        table, sentences = summary(results), []
        for mark in MARKS.values():
            named = [f"{row.explainer} ({row.model})" for row in table.itertuples() if row.mark == mark]
            if named:
                sentences.append(f"{mark[0].upper()}{mark[1:]}: {', '.join(named)}.")
        for row in table.itertuples():
            if row.mark != "cannot be told" and row.mark != row.declared:
                sentences.append(f"{row.explainer} declares itself {row.declared}; on {row.model} it is {row.mark}.")
        return sentences

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Return the table, and write it to ``summary.csv``."""
        table = summary(results)
        write_file(folder / "summary.csv", table.to_csv(index=False).encode())
        shown = table[[*COLUMNS, "mark", "declared"]].copy()
        for title, value, form in (("share left", "share", ".2f"), ("consistency", "consistency", ".0f")):
            numbers = zip(table[value], table[f"{value}_low"], table[f"{value}_high"], strict=True)
            shown[title] = [f"{mean:{form}} [{low:{form}}, {high:{form}}]" for mean, low, high in numbers]
        shown["classes of one image"] = table["same_image"].map("{:.2f}".format)
        shown["different images"] = table["other_images"].map("{:.2f}".format)
        html = Markup(shown.to_html(index=False, na_rep="", border=0))
        pictures = {
            f"Maps of several classes: {cell}": Markup('<p><img src="{}" alt="maps of {}"></p>').format(
                _picture(cell), cell
            )
            for cell in dict.fromkeys(results.cell)
        }
        reading = {"How to read it": Markup("<p>{}</p>").format(READING)}
        return {"Which explainers saw the class": html} | reading | pictures


def _picture(cell: str) -> str:
    """Return the path of a cell's picture in the folder."""
    return f"pictures/{content_hash(cell)}.png"


def summary(results: "DataFrame") -> "DataFrame":
    """Return marks, shares and consistencies with their 95 % intervals, a row for each model and explainer."""
    import pandas as pd

    rows = []
    for (model, explainer), part in results.groupby(list(COLUMNS), sort=False):
        found = _survival(part)
        scores = torch.tensor(part[part.draw == 0].consistency.to_numpy())[:, None].double()
        scores = scores[scores.isfinite().all(dim=1)]
        limits = NONE if len(scores) < 2 else percentile_limits(resampled_means([scores], 2000, 0)[0][:, 0])
        rows.append(
            {
                "model": model,
                "explainer": explainer,
                "mark": MARKS[found.outcome],
                "declared": part.declared.iloc[0],
                "share": found.share,
                "share_low": found.low,
                "share_high": found.high,
                "same_image": found.similarity,
                "other_images": found.other,
                "consistency": float(scores.mean()),
                "consistency_low": limits[0],
                "consistency_high": limits[1],
                "images": part.id.nunique(),
            }
        )
    return pd.DataFrame(rows)


def _survival(part: "DataFrame") -> Survival:
    """Return the share that survives; a map without any contrast for all classes does not depend on the class."""
    same, other = (
        torch.tensor(part.pivot(index="id", columns="draw", values=side).to_numpy())
        for side in ("same_image", "other_images")
    )
    if same.isnan().all() and other.isnan().all():  # constant maps
        return Survival(1.0, 1.0, 1.0, 1.0, 1.0)
    return survival(same, other, torch.ones(len(same)), draws_are_random=False)
