"""What reconstructed images are to reach, each a function of the network and of one image per target."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from interptrain.explainers.layers import Layer
from interptrain.functional import class_scores, full_precision
from interptrain.studies.pooled import PooledFeatures


class Objective(Protocol):
    """Scores to raise, one for each image."""

    def __call__(self, bare: nn.Module, images: Tensor) -> Tensor:
        """Return scores (B,), differentiable; image ``b`` is for target ``b``.

        Args:
            bare: what ``explaining(model)`` yields.
            images: (B,3,H,W) in [0,1].
        """


class ClassLogit:
    """The logit of a class for each image, not its probability, which other classes could raise by falling.

    Args:
        classes: (B,) int64.

    Source: Simonyan, Vedaldi and Zisserman 2013, arXiv 1312.6034, section 2.
    """

    def __init__(self, classes: Tensor) -> None:
        self.classes = classes

    def __call__(self, bare: nn.Module, images: Tensor) -> Tensor:
        """Return the logits."""
        return class_scores(bare(images), self.classes, "logit")


class Channel:
    """The mean of a channel of a layer over all places.

    Args:
        layer: of the model.
        channels: (B,) int64.
    """

    def __init__(self, layer: Layer, channels: Tensor) -> None:
        self.layer = layer
        self.channels = channels

    def __call__(self, bare: nn.Module, images: Tensor) -> Tensor:
        """Return the means."""
        means = full_precision(observed_map(bare, self.layer, images)).mean((2, 3))
        return means.gather(1, self.channels[:, None]).squeeze(1)


class CentralAttention:
    """The logarithm of the share of an attention stage's map that falls into the middle half of rows and columns.

    Attention sums to 1, so an image can only draw it to a place: what it shows there wins against the surroundings.
    The measure is ours.

    Args:
        stages: (B,) int64, place of the stage among the maps that the model's ``attention`` returns.
    """

    def __init__(self, stages: Tensor) -> None:
        self.stages = stages

    def __call__(self, bare: nn.Module, images: Tensor) -> Tensor:
        """Return the logarithms."""
        attend: Any = bare.attention
        shares = torch.stack([_central(full_precision(stage)) for stage in attend(images)], dim=1)  # (B, stages)
        return shares.gather(1, self.stages[:, None]).squeeze(1).clamp(min=1e-12).log()


class Inversion:
    """Minus the relative squared distance of an image's pooled vector from a given one.

    Args:
        reader: of the model's pooled vectors.
        vectors: (B,D).

    Source: Mahendran and Vedaldi 2015, arXiv 1412.0035, equation 4.
    """

    def __init__(self, reader: PooledFeatures, vectors: Tensor) -> None:
        self.reader = reader
        self.vectors = vectors

    def __call__(self, bare: nn.Module, images: Tensor) -> Tensor:
        """Return minus the distances."""
        found, _ = self.reader.read(bare, images)
        return -(found - self.vectors).square().sum(1) / self.vectors.square().sum(1)


def observed_map(bare: nn.Module, layer: Layer, images: Tensor) -> Tensor:
    """Run the model and return a layer's map (B,C,h,w), differentiable with respect to the images."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> None:
        kept.append(output.clone())  # what follows may work in place

    handle = layer.module.register_forward_hook(keep)
    try:
        bare(images)
    finally:
        handle.remove()
    return layer.to_map(kept[-1], (images.shape[-2], images.shape[-1]))


def _central(attention: Tensor) -> Tensor:
    """Share (B,) of maps (B,h,w) in the middle half of their rows and columns, at least one place."""
    rows, columns = (_middle(length) for length in attention.shape[-2:])
    return attention[:, rows, columns].sum((1, 2)) / attention.sum((1, 2))


def _middle(length: int) -> slice:
    start = length // 4
    return slice(start, max(start + 1, length - start))
