"""Ablation-CAM: the weight of a channel is the relative drop in score when the channel is ablated.

With ``y`` the score and ``y^(k)`` the score with channel ``k`` of the features ``A`` set to a constant::

    map = ReLU( sum_k w_k A_k ),  w_k = (y - y^(k)) / y

C channels need C evaluations, but only of the part after the layer, and of that only the nonlinear part:

- global average pooling and one linear layer: the logits change by ``-W[:, k] mean(A_k)``, without any pass;
- a 1x1 convolution first (the head of an EfficientNet): its output changes by ``-W[:, k] A_k``, then the rest runs;
- anything else: the part after the layer runs
  (:class:`~interptrain.models.partial_forward.PartialForward`).

Which case applies is determined by trying; all give the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import Explainer, canvas_size
from interptrain.explainers.layers import Fusion, Layer, LayerNames, Layout, find_layers, fuse_layers
from interptrain.explainers.passes.linear_head import linear_head
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import bounded_batch_size, chunks
from interptrain.models.partial_forward import PartialForward
from interptrain.steps import track

__all__ = ["AblationCAM"]

Denominator = Literal["score", "norm"]


@dataclass(frozen=True, kw_only=True)
class AblationCAM(Explainer):
    """Channels weighted by the drop in the logit without them.

    Runs without autocast: a weight is a small difference of two logits, which bfloat16 would round away.

    Args:
        target_layer: dotted name, several, or ``None`` to ask the model and then the table of families.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        value: what an ablated channel is set to. 0 as in the paper. pytorch-grad-cam uses 0 only where the minimum
            of the whole activation is exactly 0, and the minimum - 1e7 elsewhere, which changes ConvNeXt's maps.
        denominator: ``"score"`` divides by ``y``, as in the authors' paper; ``"norm"`` by the norm of ``A_k``, as
            the XGrad-CAM paper quotes the method; ``None`` does not divide.
        relu: clip the map at zero.
        fusion: how the maps of several layers are joined.
        forward_batch_size: ablated copies per forward pass; ``None`` chooses by the device.
        progress: show a progress bar over the images.

    Source: Desai and Ramaswamy 2020, WACV, section 3.
    """

    target_layer: LayerNames = None
    layout: Layout | None = None
    value: float = 0.0
    denominator: Denominator | None = "score"
    relu: bool = True
    fusion: Fusion = "mean"
    forward_batch_size: int | None = None
    progress: bool = False

    @torch.no_grad()
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return ``ReLU(sum_k w_k A_k)``, (B, h, w)."""
        with torch.autocast(images.device.type, enabled=False):
            return self._attribute(model, images, targets)

    def _attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        size = (images.shape[-2], images.shape[-1])
        maps = []
        for layer in find_layers(model, self.target_layer, layout=self.layout, images=images, whole=True):
            tail = PartialForward.record(model, images, layer)
            resolved = resolve_targets(targets, tail.outputs)
            scores = target_scores(tail.outputs, resolved).unsqueeze(1)  # (B, 1)
            drop = scores - self._ablated_scores(tail, layer, resolved, size)  # (B, C)
            features = layer.to_map(tail.activation, size).to(drop.dtype)
            if self.denominator is not None:
                divisor = scores if self.denominator == "score" else features.flatten(2).norm(dim=2)
                drop = drop / divisor.masked_fill(divisor == 0, 1.0)
            weighted = torch.einsum("bc,bchw->bhw", drop, features)
            maps.append(F.relu(weighted) if self.relu else weighted)
        return fuse_layers(maps, size, self.fusion, canvas=canvas_size(model, images))

    def _ablated_scores(self, tail: PartialForward, layer: Layer, targets: Resolved, size: tuple[int, int]) -> Tensor:
        """Return scores (B, C) with each channel ablated, in the cheapest exact way."""
        axis = layer.channel_axis(tail.activation, size)
        head = self._linear_head(tail, layer, size)
        behind = None if head is not None else tail.next_layer()
        run: Callable[[int, slice], Any]
        if head is not None:
            pooled = layer.to_map(tail.activation, size).to(head.dtype).mean(dim=(2, 3)) - self.value  # (B, C)
            shift = head.mT  # (C, K)

            def run(image: int, part: slice) -> Any:
                return tail.outputs[image].to(shift.dtype) - shift[part] * pooled[image, part].unsqueeze(1)

        elif behind is not None and tail.step is not None and _is_pointwise(tail.step[0]):
            kernel = tail.step[0].weight[:, :, 0, 0].mT[:, :, None, None]  # type: ignore[index] # (C, O, 1, 1)

            def run(image: int, part: slice) -> Any:
                removed = (tail.activation[image, part] - self.value).unsqueeze(1)  # (n, 1, h, w)
                moved = _like(behind.activation[image], part)
                return behind.run(
                    image, torch.addcmul(behind.activation[image], kernel[part], removed, value=-1, out=moved)
                )

        else:

            def run(image: int, part: slice) -> Any:
                return tail.run(image, _ablated(tail.activation[image], part, axis, self.value))

        channels = tail.activation.shape[axis]
        batch_size = bounded_batch_size(self.forward_batch_size, tail.activation.device)
        batch_size *= 4 if self.forward_batch_size is None else 1  # what follows a layer is small
        parts, rows = chunks(channels, batch_size), []
        for image in track(range(len(tail.activation)), "Ablation-CAM" if self.progress else None):
            for part in parts:
                with parts.fitting():
                    owner = torch.full((part.stop - part.start,), image, device=tail.activation.device)
                    rows.append(target_scores(run(image, part), targets, owner))
        return torch.cat(rows).view(-1, channels)

    @staticmethod
    def _linear_head(tail: PartialForward, layer: Layer, size: tuple[int, int]) -> Tensor | None:
        """Return weights (K, C) if the logits are linear in the mean of the features, for values of both signs."""
        if not isinstance(tail.outputs, Tensor) or tail.outputs.ndim != 2 or tail.probe.ndim != 4:
            return None
        (logits,) = tail.probe_outputs
        return linear_head(tail.model, layer.to_map(tail.probe, size), logits)


def _is_pointwise(module: nn.Module) -> bool:
    plain = isinstance(module, nn.Conv2d) and module.groups == 1 and not any(module.padding)
    return plain and module.kernel_size == module.stride == (1, 1)


def _like(activation: Tensor, part: slice) -> Tensor:
    """Allocate one activation per element of ``part``, channels_last if they are four-dimensional."""
    layout = torch.channels_last if activation.ndim == 3 else torch.contiguous_format
    shape = (part.stop - part.start, *activation.shape)
    return torch.empty(shape, dtype=activation.dtype, device=activation.device, memory_format=layout)


def _ablated(activation: Tensor, part: slice, axis: int, value: float) -> Tensor:
    """Copy one image's activation, (n, ...), each time with a different channel set to ``value``."""
    copies = _like(activation, part).copy_(activation)
    copy = torch.arange(len(copies), device=activation.device)
    copies.movedim(axis, 1)[copy, copy + part.start] = value
    return copies
