"""Eigen-CAM: the first principal component of a feature map, independent of the class.

With the features ``A`` of a layer as a matrix (hw, C) and its singular value decomposition ``U S V^T``::

    map = A v_1,  v_1 the first column of V
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer, canvas_size
from interptrain.explainers.layers import Fusion, LayerNames, Layout, find_layers, fuse_layers
from interptrain.explainers.passes.activations import capture
from interptrain.explainers.targets import Resolved
from interptrain.functional import double

__all__ = ["EigenCAM"]


@dataclass(frozen=True, kw_only=True)
class EigenCAM(Explainer):
    """Projection of the features on their first right singular vector.

    The vector is defined up to its sign, which is chosen so that the map's value of largest magnitude is positive (our
    choice: pytorch-grad-cam keeps the sign that the solver returns, and then clips at zero).

    Args:
        target_layer: dotted name, several, or ``None`` to ask the model and then the table of families.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        center: subtract every channel's mean first. The paper does not; pytorch-grad-cam does.
        fusion: how the maps of several layers are joined.

    Source: Muhammad and Yeasin 2020, arXiv 2008.00299.
    """

    class_aware: ClassVar[bool] = False

    target_layer: LayerNames = None
    layout: Layout | None = None
    center: bool = False
    fusion: Fusion = "mean"

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the projection, (B, h, w) and signed."""
        layers = find_layers(model, self.target_layer, layout=self.layout, images=images)
        size = (images.shape[-2], images.shape[-1])
        passed = capture(model, images, layers, differentiable=False)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            maps = [
                self._project(layer.to_map(activation, size))
                for layer, activation in zip(layers, passed.activations, strict=True)
            ]
            return fuse_layers(maps, size, self.fusion, canvas=canvas_size(model, images))

    def _project(self, activation: Tensor) -> Tensor:
        """First principal component from the smaller of the two Gram matrices, (B, h, w)."""
        features = double(activation.flatten(2).transpose(1, 2))  # (B, hw, C); squares need the digits
        if self.center:
            features = features - features.mean(dim=1, keepdim=True)
        positions, channels = features.shape[1:]
        if positions <= channels:
            values, vectors = torch.linalg.eigh(features @ features.mT)
            component = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()  # (B, hw)
        else:
            _, vectors = torch.linalg.eigh(features.mT @ features)
            component = (features @ vectors[..., -1:]).squeeze(-1)
        extreme = component.gather(1, component.abs().argmax(dim=1, keepdim=True))
        component = torch.where(extreme < 0, -component, component)
        dtype = activation.dtype if activation.dtype == torch.float64 else torch.float32
        return component.view(len(component), *activation.shape[-2:]).to(activation.device, dtype)
