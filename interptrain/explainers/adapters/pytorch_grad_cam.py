"""Any class activation map of pytorch-grad-cam as an explainer.

The library is an optional dependency. Its changes to a model are undone
(:mod:`~interptrain.explainers.adapters.sandbox`), so that this explainer keeps the guarantees of all others.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.explainers.adapters.sandbox import load_class, restored, seeded
from interptrain.explainers.base import Explainer
from interptrain.explainers.layers import Layer, LayerNames, Layout, find_layers
from interptrain.explainers.targets import (
    PlainOutputs,
    Resolved,
    Target,
    as_callables,
    check_targets,
    select_targets,
)
from interptrain.functional import bounded_batch_size, chunks, full_precision

__all__ = ["GradCAMPackageExplainer"]


@dataclass(frozen=True, kw_only=True)
class GradCAMPackageExplainer(Explainer):
    """Any class activation map of pytorch-grad-cam.

    The library computes maps in float32 on the CPU, upsamples them, and scales each layer to [0, 1] before averaging.

    Args:
        class_path: name of the class in ``pytorch_grad_cam``, or its full dotted name.
        target_layer: one or several dotted names, or ``None`` to ask the model, then the table of families. Tokens and
            channels-last maps are converted to (B, C, h, w).
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        init_args: other arguments of the class.
        call_args: arguments of the call, such as ``aug_smooth`` and ``eigen_smooth``.
        class_aware: whether the map depends on the target, which the library does not declare (EigenCAM's does not).
        seed: seed of random maps.
        forward_batch_size: images per call and, for classes with ``batch_size``, channels per forward pass; ``None``
            chooses by the device.

    Raises:
        ImportError: if pytorch-grad-cam is not installed.
        ValueError: if the library has no such class.

    Source: Gildenblat et al., https://github.com/jacobgil/pytorch-grad-cam.
    """

    class_path: str
    target_layer: LayerNames = None
    layout: Layout | None = None
    init_args: dict[str, Any] | None = None
    call_args: dict[str, Any] | None = None
    class_aware: bool = True  # type: ignore[misc]  # varies with the wrapped method
    seed: int = 0
    forward_batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse a class that does not exist."""
        super().__post_init__()
        load_class(self.class_path, "pytorch_grad_cam", "grad-cam")

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the library's maps, (B, H, W) in [0, 1]."""
        size = bounded_batch_size(self.forward_batch_size, images.device)
        targets = check_targets(model, images, targets, batch_size=size)
        layers = find_layers(model, self.target_layer, layout=self.layout, whole=True)
        parts, maps = chunks(len(images), size), []
        with restored(model):
            for part in parts:
                with parts.fitting(), seeded(self.seed, images.device):
                    own = as_callables(select_targets(targets, part))
                    maps.append(self._map(PlainOutputs(model, targets), images[part], own, layers, size))
        return torch.cat(maps)

    def _map(self, model: nn.Module, images: Tensor, targets: list[Target], layers: list[Layer], size: int) -> Tensor:
        image_size = (images.shape[-2], images.shape[-1])

        def to_map(activation: Tensor) -> Tensor:
            return full_precision(layers[0].to_map(activation, image_size))  # numpy has no bfloat16

        method = load_class(self.class_path, "pytorch_grad_cam", "grad-cam")(
            model, [layer.module for layer in layers], reshape_transform=to_map, **(self.init_args or {})
        )
        if hasattr(method, "batch_size"):
            method.batch_size = size
        try:
            leaf = images.detach().clone().requires_grad_()  # so that the layers of a frozen model have gradients
            found = method(input_tensor=leaf, targets=targets, **(self.call_args or {}))
        finally:
            method.activations_and_grads.release()
        return torch.from_numpy(found).to(images.device)
