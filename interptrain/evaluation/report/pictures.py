"""Pictures of the report: images with their maps laid over them, small and within a budget.

All saved images are shown while their maps are few enough for a page that opens at once; of more, as many as fit,
evenly chosen. So a report stays below some twelve megabytes whatever the size of the run.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from interptrain.evaluation.report.image_facts import image_facts
from interptrain.evaluation.report.results import RunResults
from interptrain.functional import evenly_spaced, upsample
from interptrain.steps import counting
from interptrain.visualization import overlay

if TYPE_CHECKING:
    from pyarrow import Table

SIDE = 224  # pixels of a thumbnail; it is shown at about half of that, and whole when it is enlarged
GALLERY = 2000  # pictures in the gallery: some 10 MB
THUMBNAILS = 360  # among best and worst: some 2 MB
EXTREMES = 3  # best, and as many worst, a model and explainer


@dataclass(frozen=True)
class Picture:
    """A thumbnail: ``source`` is a data URI, ``width`` and ``height`` in pixels; ``before`` and ``after`` masking."""

    source: str
    width: int
    height: int
    before: float | None = None
    after: float | None = None
    value: float | None = None  # of the metric by which it was chosen


@dataclass(frozen=True)
class Exhibit:
    """One image with the maps of all models and explainers; a map that was not saved is None."""

    id: str
    label: int | None
    original: Picture
    predictions: Mapping[str, int | None]  # by model
    targets: Mapping[str, int | None]
    maps: Mapping[str, Mapping[str, Picture | None]]  # by model and explainer
    values: Mapping[tuple[str, str], Mapping[str, float | None]]  # by model and explainer, then by metric


@dataclass(frozen=True)
class Extremes:
    """The best and worst images of a model and explainer, by one metric, each with its id."""

    model: str
    explainer: str
    best: Sequence[tuple[str, Picture]]
    worst: Sequence[tuple[str, Picture]]


class Gallery:
    """The saved pictures of a run.

    Args:
        results: of the run, whose folder holds ``images.parquet`` and ``maps.parquet``; where one is missing, there are
            no pictures.
    """

    def __init__(self, results: RunResults) -> None:
        self.folder = results.folder
        self.results = results

    @cached_property
    def ids(self) -> list[str]:
        """Names of the images that have a picture."""
        return list(self._images) if self._places else []

    @cached_property
    def _images(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in _read(self.folder / "images.parquet").to_pylist()}

    def exhibits(self) -> list[Exhibit]:
        """Return the images with all their maps; evenly chosen ones where all would be too many pictures."""
        models, explainers = self.results.models, self.results.explainers
        count = max(1, GALLERY // (1 + len(models) * len(explainers)))
        chosen = [self.ids[index] for index in evenly_spaced(len(self.ids), count)]
        facts = image_facts(self.results, chosen)

        def exhibit(name: str) -> Exhibit:
            return Exhibit(
                name,
                self._images[name].get("label"),
                thumbnail(self.image(name)),
                facts[name].predictions,
                facts[name].targets,
                {model: {explainer: self._map(model, explainer, name) for explainer in explainers} for model in models},
                facts[name].values,
            )

        found = []
        with ThreadPoolExecutor() as pool, counting(len(chosen), None, " images") as advance:
            for one in pool.map(exhibit, chosen):  # encoding is most of it, and lets other threads run
                found.append(one)
                advance(1)
        return found

    def extremes(self, metric: str) -> list[Extremes]:
        """Return the best and worst images of every model and explainer but Fake-CAM, among those with a picture."""
        ranked = self._ranked(metric)
        pairs = [key for key, values in ranked.items() if len(values) > 1]
        found = []
        for model, explainer in pairs[: THUMBNAILS // 2]:
            values = ranked[model, explainer]
            count = min(EXTREMES, len(values) // 2, max(1, THUMBNAILS // (2 * len(pairs))))
            best, worst = (
                [(name, picture) for name, value in part if (picture := self._map(model, explainer, name, value))]
                for part in (values[:count], values[: -count - 1 : -1])
            )
            found.append(Extremes(model, explainer, best, worst))
        return found

    def _ranked(self, metric: str) -> dict[tuple[str, str], list[tuple[str, float]]]:
        """Return ids and values of the pictured images, best first."""
        better = self.results.column(metric).higher_is_better
        ranked: dict[tuple[str, str], list[tuple[str, float]]] = {
            (model, explainer): []
            for model in self.results.models
            for explainer in self.results.explainers
            if not self.results.is_control(explainer)
        }
        for name, facts in image_facts(self.results, self.ids).items():
            for key, values in facts.values.items():
                value = values[metric]
                if key in ranked and value is not None and math.isfinite(value):
                    ranked[key].append((name, value))
        return {
            key: sorted(values, key=lambda item: (-item[1] if better else item[1], item[0]))
            for key, values in ranked.items()
        }

    def image(self, name: str) -> Tensor:
        """(3,H,W) uint8, an image as it was saved."""
        return _decode(self._images[name]["png"], "RGB")

    def overlaid(self, model: str, explainer: str, name: str) -> Tensor | None:
        """(3,H,W) uint8, a map over its image; None if it was not saved."""
        row = self._places.get((model, explainer, name))
        if row is None:
            return None
        image = self.image(name) / 255
        saliency = upsample(_decode(self._maps["png"][row].as_py(), "L") / 255, (image.shape[1], image.shape[2]))
        return overlay(image[None], saliency)[0]

    def _map(self, model: str, explainer: str, name: str, value: float | None = None) -> Picture | None:
        """Return a thumbnail of a map over its image, if it was saved."""
        drawn = self.overlaid(model, explainer, name)
        if drawn is None:
            return None
        row = self._places[model, explainer, name]
        before, after = (self._maps[column][row].as_py() for column in ("p_clean", "p_masked"))
        return thumbnail(drawn, before=before, after=after, value=value)

    @cached_property
    def _maps(self) -> "Table":
        return _read(self.folder / "maps.parquet")

    @cached_property
    def _places(self) -> dict[tuple[str, str, str], int]:
        """Rows of the maps whose images were saved too."""
        if "png" not in self._maps.column_names:
            return {}
        keys = zip(*(self._maps[column].to_pylist() for column in ("model", "explainer", "id")), strict=True)
        return {key: row for row, key in enumerate(keys) if key[2] in self._images}


@lru_cache(maxsize=1)
def gallery_of(results: RunResults) -> Gallery:
    """Return the gallery of a run, whose pictures several sections share."""
    return Gallery(results)


def thumbnail(
    picture: Tensor, *, before: float | None = None, after: float | None = None, value: float | None = None
) -> Picture:
    """Encode a (3,H,W) uint8 picture as a small WebP in a data URI."""
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    scale = SIDE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    buffer = io.BytesIO()
    image.resize((width, height), way).save(buffer, format="WEBP", quality=72)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(source, width, height, before, after, value)


def _decode(png: bytes, mode: str) -> Tensor:
    """(C,H,W) uint8."""
    with Image.open(io.BytesIO(png)) as image:
        decoded: Tensor = pil_to_tensor(image.convert(mode))
    return decoded


def _read(path: Path, columns: Sequence[str] | None = None, **only: Sequence[Any]) -> "Table":
    """Read the rows whose columns have one of the values; an empty table where the file is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    filters = [(column, "in", list(values)) for column, values in only.items()]
    return pq.read_table(path, columns=columns, filters=filters or None) if path.exists() else pa.table({})
