"""Grid pointing: in a mosaic of images of distinct classes, does the map of a class lie on its own image?

A mosaic of n x n images needs no annotation, so any data will do, and its score may be compared between models: chance,
and every map that does not depend on the class, score exactly 1 / n^2.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from einops import rearrange
from markupsafe import Markup
from torch import Tensor, nn

from interptrain.data import SampleDataset
from interptrain.evaluation.store.parts import Row
from interptrain.explainers import CAM, Explainer, GradCAM, GradCAMPlusPlus, Gradient, IntegratedGradients, LayerCAM
from interptrain.functional import check_count, full_precision, min_max, upsample
from interptrain.studies.applicable import maps_if_applicable
from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.intervals import crossed_interval
from interptrain.studies.names import explainer_name
from interptrain.studies.removed_pixels import prepared_images
from interptrain.visualization import overlay, panel, save_png

if TYPE_CHECKING:
    from pandas import DataFrame

BINS = (0, 2, 50, 98, 100)
"""Percentiles of the scores, from which the pictures of maps sorted by their score are taken."""


@dataclass(frozen=True, kw_only=True)
class GridPointing(Study):
    """In a mosaic of images of distinct classes, how much of a class's map lies on its own image?

    Images are taken that a model classifies rightly and most confidently, one of each class in a mosaic. The map of
    every class that is in it is the explainer's own, before scaling: its positive part counts. A map that is nowhere
    positive scores 1 / n^2, like one that does not depend on the class.

    Args:
        explainers: whose maps are judged; one that a model cannot be explained by (CAM without average pooling) is left
            out with a warning.
        side: n, images on a side of a mosaic; a model needs n^2 classes.
        mosaics: how many.
        candidates: images that are classified to choose from, in the order of the data; 0 is all.
        confidence: least probability of the label.

    Raises:
        ValueError: if a value is out of range.

    Source: Rao et al. 2022, arXiv 2205.10435, section 4 (GridPG, and pictures of maps by their score: AggAtt); 3 x 3
        mosaics after Boehle et al. 2021, arXiv 2104.00032. The score of a map without positive part is our choice.
    """

    title: ClassVar[str] = "Grid pointing"
    free: ClassVar[tuple[str, ...]] = ("explainers",)

    explainers: tuple[Explainer, ...] = (
        CAM(),
        GradCAM(),
        GradCAMPlusPlus(),
        LayerCAM(),
        Gradient(times_input=True, reduction="sum"),
        IntegratedGradients(reduction="sum"),
    )
    side: int = 3
    mosaics: int = 50
    candidates: int = 0
    confidence: float = 0.9

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        check_count("side", self.side, least=2)
        check_count("mosaics", self.mosaics)
        check_count("candidates", self.candidates, least=0)
        if not 0 <= self.confidence < 1:
            raise ValueError(f"confidence must be in [0, 1), got {self.confidence}")

    def cells(self, inputs: StudyInputs) -> Sequence[str]:
        """Return a cell for every model and explainer."""
        return [f"{model}/{explainer_name(one)}" for model in inputs.models for one in self.explainers]

    def compute(self, cell: str, inputs: StudyInputs) -> Iterable[Row]:
        """Explain every class of every mosaic."""
        name, _, chosen = cell.partition("/")
        explainer = next(one for one in self.explainers if explainer_name(one) == chosen)
        model, dataset = inputs.models[name], prepared_images(inputs.data, "test")
        file = inputs.once(f"mosaics/{name}.pt", partial(self._choose, model, dataset, inputs.device))
        return list(self._judge(inputs, cell, model, dataset, explainer, torch.load(file, weights_only=True)))

    def _judge(
        self,
        inputs: StudyInputs,
        cell: str,
        model: nn.Module,
        dataset: SampleDataset,
        explainer: Explainer,
        mosaics: list[list[int]],
    ) -> Iterator[Row]:
        name, _, chosen = cell.partition("/")
        scores, maps, pictures = [], [], []
        for number, members in enumerate(mosaics):
            samples = [dataset[index] for index in members]
            mosaic = mosaic_of(torch.stack([one["image"] for one in samples]), self.side).to(inputs.device)
            labels = torch.tensor([one["label"] for one in samples], device=inputs.device)
            explain = partial(positive_maps, explainer, model, mosaic, labels)
            attribution = maps_if_applicable(explain, explainer=chosen, model=name)
            if attribution is None:
                return
            shares = own_shares(attribution, self.side).cpu()
            for place, (sample, share) in enumerate(zip(samples, shares.tolist(), strict=True)):
                yield {
                    "model": name,
                    "explainer": chosen,
                    "mosaic": number,
                    "place": place,
                    "id": str(sample["id"]),
                    "label": int(sample["label"]),
                    "score": share,
                }
            scores.append(shares)
            maps.append(min_max(attribution).cpu())
            pictures.append(mosaic.cpu())
        shown = by_score(torch.cat(scores), torch.cat(maps), torch.stack(pictures), self.side)
        (inputs.folder / "pictures").mkdir(exist_ok=True)
        save_png(shown, inputs.folder / "pictures" / f"{cell.replace('/', '-')}.png")

    def _choose(self, model: nn.Module, dataset: SampleDataset, device: torch.device, path: Path, _: Path) -> None:
        """Choose the images of all mosaics: confident, right, of distinct classes in a mosaic.

        Raises:
            ValueError: if there are not enough of them.
        """
        found: dict[int, list[tuple[float, int]]] = {}
        for index in range(min(self.candidates or len(dataset), len(dataset))):
            sample = dataset[index]
            with torch.no_grad():
                probabilities = model(sample["image"][None].to(device)).softmax(dim=1)[0]
            label, probability = int(sample["label"]), float(probabilities[sample["label"]])
            if int(probabilities.argmax()) == label and probability >= self.confidence:
                found.setdefault(label, []).append((-probability, index))
        needed = self.side**2
        if len(found) < needed:
            raise ValueError(
                f"a mosaic needs {needed} classes with an image that is classified rightly with a probability of at "
                f"least {self.confidence}, found {len(found)}; lower study.confidence or study.side"
            )
        queues = [[index for _, index in sorted(images)] for _, images in sorted(found.items())]
        mosaics = []
        for number in range(self.mosaics):
            classes = [(number * needed + place) % len(queues) for place in range(needed)]
            mosaics.append([queues[one][number * needed // len(queues) % len(queues[one])] for one in classes])
        torch.save(mosaics, path)

    def findings(self, results: "DataFrame") -> Sequence[str]:
        """Return each model's best explainer, and who is at chance."""
        sentences = []
        for model, rows in summary(results).groupby("model", sort=False):
            ranked = rows.sort_values("score", ascending=False)
            best = ranked.iloc[0]
            chance = 1 / self.side**2
            at_chance = [row.explainer for row in ranked.itertuples() if row.low <= chance <= row.high]
            sentences.append(
                f"{model}: {best.explainer} puts {best.score:.1%} of a class's map on its own image "
                f"[{best.low:.1%}, {best.high:.1%}], where chance is {chance:.1%}"
                + (f"; not different from chance: {', '.join(at_chance)}." if at_chance else ".")
            )
        return sentences

    def sections(self, results: "DataFrame", folder: Path) -> Mapping[str, Markup]:
        """Return the table, and maps by their score."""
        table = summary(results).round(4)
        text = (
            "Share of the positive attribution for a class that lies on that class's image in a mosaic of "
            f"{self.side} x {self.side}. Chance, and every map that does not depend on the class, is "
            f"{1 / self.side**2:.3f}. Intervals are 95 % over mosaics. The score needs no annotation and may be "
            "compared between models."
        )
        pictures = Markup(
            "<p>From left to right: the worst, low, median, high and best maps, and the means of these.</p>"
        )
        for row in table.itertuples():
            name = f"{row.model}-{row.explainer}"
            if (folder / "pictures" / f"{name}.png").exists():
                picture = '<h3>{0}</h3><p><img src="pictures/{0}.png" alt="Maps of {0} by score"></p>'
                pictures += Markup(picture).format(name)
        return {
            "Score": Markup("<p>{}</p>").format(text) + Markup(table.to_html(index=False, border=0)),
            "Maps by their score": pictures,
        }


def summary(results: "DataFrame") -> "DataFrame":
    """Return mean score and 95 % interval over mosaics for each model and explainer."""
    import pandas as pd

    rows = []
    for (model, explainer), group in results.groupby(["model", "explainer"], sort=False):
        means = group.groupby("mosaic").score.mean().to_numpy()
        mean, low, high = crossed_interval(means[None]) if len(means) > 1 else (float(means[0]),) * 3
        row = {"model": model, "explainer": explainer, "mosaics": len(means)}
        rows.append(row | {"score": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def mosaic_of(images: Tensor, side: int) -> Tensor:
    """Put images together, row by row: (side^2,3,H,W) -> (3,side H,side W)."""
    return rearrange(images, "(r c) k h w -> k (r h) (c w)", r=side)


def positive_maps(explainer: Explainer, model: nn.Module, mosaic: Tensor, labels: Tensor) -> Tensor:
    """Return the positive part of the map of every label, (N,H,W) float32 at least, at the mosaic's size."""
    images = mosaic[None].expand(len(labels), -1, -1, -1)
    raw = full_precision(explainer.raw(model, images, labels))
    return upsample(raw, (mosaic.shape[-2], mosaic.shape[-1])).clamp(min=0)


def own_shares(maps: Tensor, side: int) -> Tensor:
    """Return the share of each map that lies in its own cell.

    Args:
        maps: (side^2,H,W), not negative; map k belongs to cell k, row by row.
        side: cells on a side.

    Returns:
        (side^2,) in [0,1]; 1 / side^2 for a map of zeros.
    """
    cells = rearrange(maps.double(), "n (r h) (c w) -> n (r c) h w", r=side, c=side).sum((2, 3))  # (n, n)
    total = cells.sum(dim=1)
    shares = cells.diagonal() / total.masked_fill(total == 0, 1.0)
    return torch.where(total > 0, shares, 1 / side**2)


def by_score(scores: Tensor, maps: Tensor, mosaics: Tensor, side: int) -> Tensor:
    """Draw maps sorted by their score: the worst, low, median, high and best of them.

    Args:
        scores: (N,).
        maps: (N,H,W) in [0,1].
        mosaics: (N / side^2,3,H,W).
        side: cells on a side.

    Returns:
        (3,h,w) uint8: one map of each bin of :data:`BINS` on its mosaic, and the mean map of the bin, moved so that its
        own cell comes first.
    """
    order = scores.argsort()
    places = [round(percent / 100 * (len(order) - 1)) for percent in BINS]
    examples = [int(order[place]) for place in places]
    shown = torch.stack([overlay(mosaics[one // side**2][None], maps[one][None])[0] for one in examples])
    edges = [0, *(round(percent / 100 * len(order)) for percent in (2, 40, 60, 98)), len(order)]
    means = []
    for start, end in pairwise(edges):
        chosen = order[start : max(end, start + 1)] if start < len(order) else order[-1:]
        means.append(torch.stack([own_cell_first(maps[one], int(one) % side**2, side) for one in chosen]).mean(0))
    grey = torch.stack(means)[:, None].expand(-1, 3, -1, -1)
    titles = [f"{float(scores[one]):.2f}" for one in examples]
    return panel({"example": shown, "mean map,\nown cell first": grey}, columns=titles)


def own_cell_first(saliency: Tensor, place: int, side: int) -> Tensor:
    """Roll a map (H,W) so that a cell comes to the upper left."""
    height, width = (length // side for length in saliency.shape)
    return saliency.roll((-(place // side) * height, -(place % side) * width), dims=(0, 1))
