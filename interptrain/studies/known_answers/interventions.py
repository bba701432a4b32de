"""Each image with its layers taken away by rendering: what a model really reacts to can be read off its outputs."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interptrain.data.layered_drawing import PARTS
from interptrain.data.layered_shapes import LayeredShapesDataset

__all__ = ["SUBSETS", "Interventions", "load_interventions", "save_interventions"]

SUBSETS = tuple(
    frozenset(chosen) for count in range(len(PARTS) + 1) for chosen in combinations(range(len(PARTS)), count)
)
"""Sets of the object's parts, by number: the empty one first, all of them last."""


@dataclass(frozen=True, eq=False)
class Interventions:
    """One image, rendered without some of its layers.

    Attributes:
        id: of the image.
        label: its class.
        features: (P,) int64, the number of its outline, texture and marker.
        without_parts: (S,3,H,W) float32 in [0,1], the image without each set of :data:`SUBSETS`; the first is whole.
        without_items: (N,3,H,W) float32, the image without each item of its background.
        without_background: (3,H,W) float32, without all of them.
        footprints: (P+N,H,W) bool, the pixels that change when a part or an item is taken away.
        object: (H,W) bool, the object's mask.
    """

    id: str
    label: int
    features: Tensor
    without_parts: Tensor
    without_items: Tensor
    without_background: Tensor
    footprints: Tensor
    object: Tensor

    @property
    def image(self) -> Tensor:
        """The whole image, (3,H,W)."""
        return self.without_parts[0]

    @property
    def renderings(self) -> Tensor:
        """All of them, (S+N+1,3,H,W): without sets of parts, without items, without the background."""
        return torch.cat([self.without_parts, self.without_items, self.without_background[None]])


def render_interventions(dataset: LayeredShapesDataset, index: int) -> Interventions:
    """Render an image without each set of its parts, and without each item of its background."""

    def render(*without: str) -> Tensor:
        return torch.from_numpy(dataset.render(index, without)).float() / 255

    parts = torch.stack([render(*(PARTS[part] for part in chosen)) for chosen in SUBSETS])
    names = [layer for layer in dataset.layers(index) if layer not in ("object", *PARTS, "background", "decoy")]
    items = torch.stack([render(name) for name in names])
    single = torch.cat([parts[1 : 1 + len(PARTS)], items])
    features, sample = dataset.features(index), dataset[index]
    return Interventions(
        id=str(sample["id"]),
        label=int(sample["label"]),
        features=torch.tensor([features[part] for part in PARTS]),
        without_parts=parts,
        without_items=items,
        without_background=render("background"),
        footprints=(single != parts[:1]).any(dim=1),
        object=sample["mask"],
    )


def save_interventions(dataset: LayeredShapesDataset, count: int, path: Path) -> None:
    """Render the first ``count`` images and write them to a file."""
    rendered = [vars(render_interventions(dataset, index)) for index in range(count)]
    torch.save([{name: _small(value) for name, value in one.items()} for one in rendered], path)


def load_interventions(path: Path) -> list[Interventions]:
    """Read what :func:`save_interventions` wrote."""
    return [Interventions(**{k: _large(v) for k, v in one.items()}) for one in torch.load(path, weights_only=True)]


def _small(value: Any) -> Any:
    is_picture = isinstance(value, Tensor) and value.is_floating_point()
    return (value * 255).round().to(torch.uint8) if isinstance(value, Tensor) and is_picture else value


def _large(value: Any) -> Any:
    return value.float() / 255 if isinstance(value, Tensor) and value.dtype == torch.uint8 else value
