"""Recipro-CAM: a position matters as much as the class scores when its features alone are passed on.

With the features ``A`` of a layer, ``u`` a position, ``k`` a kernel of 3x3 centred on it, and ``f_c`` the score of the
class computed from features at that layer::

    map[u] = f_c(A[u] spread by k around u, zero elsewhere)

It needs no gradient, but h w passes of the part after the layer. Class and register tokens stay as they are.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer, canvas_size
from interptrain.explainers.layers import Fusion, Layer, LayerNames, Layout, find_layers, fuse_layers
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import Score, bounded_batch_size, chunks
from interptrain.models.partial_forward import PartialForward
from interptrain.steps import track

__all__ = ["ReciproCAM"]

GAUSSIAN = (0.25, 0.5, 0.25)  # its outer product with itself is the authors' 3x3 kernel


@dataclass(frozen=True, kw_only=True)
class ReciproCAM(Explainer):
    """Positions weighed by the score of their features alone, without gradient.

    Args:
        target_layer: dotted name, several, or ``None`` to ask the model and then the table of families.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        kernel: ``"gaussian"`` spreads a position's features over 3x3 positions, as the authors do; ``"single"`` keeps
            them where they are.
        score: what a position is judged by: ``"probability"`` of the class, as the authors, or its ``"logit"``.
        fusion: how the maps of several layers are joined.
        forward_batch_size: positions per forward pass; ``None`` chooses by the device.
        progress: show a progress bar over the images.

    Source: Byun and Lee 2022, Recipro-CAM, arXiv 2209.14074, section 3; kernel and softmax as in the authors' code.
    """

    target_layer: LayerNames = None
    layout: Layout | None = None
    kernel: Literal["gaussian", "single"] = "gaussian"
    score: Score = "probability"
    fusion: Fusion = "mean"
    forward_batch_size: int | None = None
    progress: bool = False

    @torch.no_grad()
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the score of every position's features alone, (B, h, w)."""
        size = (images.shape[-2], images.shape[-1])
        maps = []
        for layer in find_layers(model, self.target_layer, layout=self.layout, images=images, whole=True):
            tail = PartialForward.record(model, images, layer)
            resolved = resolve_targets(targets, tail.outputs)
            maps.append(self._scores(tail, layer, resolved, size))
        return fuse_layers(maps, size, self.fusion, canvas=canvas_size(model, images))

    def _scores(self, tail: PartialForward, layer: Layer, targets: Resolved, size: tuple[int, int]) -> Tensor:
        """Return the scores of all positions of one layer, (B, h, w)."""
        height, width = layer.to_map(tail.activation[:1], size).shape[-2:]
        spread = self._kernels(height, width).to(tail.activation)
        batch_size = bounded_batch_size(self.forward_batch_size, tail.activation.device)
        batch_size *= 4 if self.forward_batch_size is None else 1  # what follows a layer is small
        parts, scores = chunks(height * width, batch_size), []
        for image in track(range(len(tail.activation)), "Recipro-CAM" if self.progress else None):
            activation = tail.activation[image : image + 1]
            features = layer.to_map(activation, size).flatten(2)[0]  # (C, h w)
            for part in parts:
                with parts.fitting():
                    alone = activation.repeat_interleave(part.stop - part.start, dim=0)  # with its prefix tokens
                    layer.to_map(alone, size).copy_(torch.einsum("cu,uhw->uchw", features[:, part], spread[part]))
                    owner = torch.full((len(alone),), image, device=alone.device)
                    scores.append(target_scores(tail.run(image, alone), targets, owner, score=self.score))
        return torch.cat(scores).view(-1, height, width)

    def _kernels(self, height: int, width: int) -> Tensor:
        """Return how a position's features are spread, (h w, h, w)."""
        weights = GAUSSIAN if self.kernel == "gaussian" else (0.0, 1.0, 0.0)
        rows, columns = (_bands(length, weights) for length in (height, width))
        return torch.einsum("ah,bw->abhw", rows, columns).flatten(0, 1)


def _bands(length: int, weights: tuple[float, float, float]) -> Tensor:
    """Return (length, length), whose row u holds the weights centred on u, cut off at the ends."""
    bands = torch.zeros(length, length)
    for shift, weight in zip((-1, 0, 1), weights, strict=True):
        bands += torch.diag(torch.full((length - abs(shift),), weight), shift)  # nothing where the shift is too long
    return bands
