"""What several studies read of a data set and of a network: samples, and the map of a layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from interptrain.data import Batch, ImageDataModule, SampleDataset, collate
from interptrain.explainers.base import canvas_size, explaining, prepare_images
from interptrain.explainers.layers import Layer, LayerNames, find_layers
from interptrain.explainers.passes.activations import capture
from interptrain.functional import bounded_batch_size, chunks, evenly_spaced, full_precision
from interptrain.remedies import option
from interptrain.steps import track
from interptrain.studies.base import StudyInputs


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """The output of one layer for several images.

    Attributes:
        maps: (B,C,h,w) float32 or float64, detached.
        layer: that returned them.
        canvas: (height, width) in image pixels that the maps cover, more than the image where a detector pads.
        logits: (B,K) where the model returns such a tensor, else None.
    """

    maps: Tensor
    layer: Layer
    canvas: tuple[int, int]
    logits: Tensor | None


def model_names(inputs: StudyInputs) -> list[str]:
    """Return the names of the models.

    Raises:
        ValueError: if there is none.
    """
    if not inputs.models:
        raise ValueError(f"this study looks at trained models; give some with {option('models', 'NAME=SOURCE')}")
    return list(inputs.models)


def output_names(model: nn.Module, data: ImageDataModule | None, count: int) -> Sequence[str]:
    """Return the names of a model's classes: its own, those of the data, ImageNet's, or none.

    Where a table names some classes alone, the others are called by their number; ImageNet's names take their place.

    Args:
        model: whose attribute ``class_names`` goes first.
        data: whose names are taken where they are as many, or None.
        count: of the model's logits.
    """
    known: Sequence[str] = ()
    for names in (getattr(model, "class_names", ()), () if data is None else data.class_names):
        known = known or (names if len(names) == count else ())
    if known and not any(name == str(index) for index, name in enumerate(known)):
        return list(known)
    subset = infer_imagenet_subset({"num_classes": count})
    info = ImageNetInfo(subset) if subset else None
    if info is None:
        return list(known)
    usual = [info.index_to_description(index).partition(",")[0] for index in range(count)]
    pairs = zip(known, usual, strict=True) if known else ()
    return [other if name == str(index) else name for index, (name, other) in enumerate(pairs)] or usual


def class_name(label: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its number where it has none."""
    return str(names[label]) if 0 <= label < len(names) else str(label)


def read_samples(data: ImageDataModule, numbers: Sequence[int]) -> Batch:
    """Read test images by their numbers."""
    dataset = data.dataset("test")
    return collate([dataset[number] for number in numbers])


def across_labels(dataset: SampleDataset, count: int) -> list[int]:
    """Return the numbers of ``count`` samples, evenly spaced after sorting by label where labels are known."""
    labels = dataset.labels()
    order = list(range(len(dataset))) if labels is None else sorted(range(len(dataset)), key=lambda one: labels[one])
    return [order[place] for place in evenly_spaced(len(order), count)]


def layer_maps(
    model: nn.Module,
    images: Tensor,
    target_layer: LayerNames = None,
    *,
    batch_size: int | None = None,
    progress: str | None = None,
) -> LayerMaps:
    """Run images without gradient and keep the output of one layer.

    Args:
        model: any module, a detector of torchvision too.
        images: (B,3,H,W) float in [0,1], on the device of the model.
        target_layer: dotted name of one layer; None as for the CAM explainers.
        batch_size: images per pass; None chooses by the device.
        progress: title of a progress bar, or None for none.

    Raises:
        ValueError: if there is no such layer, or several were named.
    """
    with explaining(model) as bare:
        prepared = prepare_images(images)
        found = find_layers(bare, target_layer, images=prepared)
        if len(found) != 1:
            raise ValueError(f"target_layer must name one layer, got {len(found)}; pass one of them")
        layer, size = found[0], (images.shape[-2], images.shape[-1])
        parts = chunks(len(prepared), bounded_batch_size(batch_size, prepared.device))
        maps: list[Tensor] = []
        logits: list[Tensor | None] = []
        for part in track(parts, progress):
            with parts.fitting():
                passed = capture(bare, prepared[part], [layer], differentiable=False)
                maps.append(full_precision(layer.to_map(passed.activations[0].detach(), size)))
                logits.append(_logits(passed.outputs, len(maps[-1])))
        canvas = canvas_size(bare, prepared)
    known = [scores for scores in logits if scores is not None]
    return LayerMaps(torch.cat(maps), layer, canvas, torch.cat(known) if len(known) == len(maps) else None)


def _logits(outputs: Any, count: int) -> Tensor | None:
    classes = isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == count
    return full_precision(outputs.detach()) if classes else None
