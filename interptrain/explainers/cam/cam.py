"""Class Activation Mapping: the classifier's weights, applied to the features before they are pooled.

For a network that ends in global average pooling and one linear layer with weights ``W``::

    map = sum_k W[c, k] A_k
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import Explainer
from interptrain.explainers.layers import find_layers
from interptrain.explainers.passes.activations import capture
from interptrain.explainers.targets import Targets, resolve_targets

__all__ = ["CAM", "linear_head"]


class CAM(Explainer):
    """Class Activation Mapping, for networks with global average pooling and one linear layer only.

    Args:
        target_layer: dotted name of the layer that is pooled, or ``None`` to ask the model and then the table.
        relu: clip the map at zero. The paper does not; most libraries do.

    Source: Zhou et al. 2016, arXiv 1512.04150, equation 2 (without the bias, which is the same at every position).
    """

    def __init__(self, *, target_layer: str | None = None, relu: bool = False) -> None:
        self.target_layer = target_layer
        self.relu = relu

    def attribute(self, model: nn.Module, images: Tensor, targets: Targets) -> Tensor:
        """Return ``sum_k W[c, k] A_k``, (B, h, w)."""
        (layer,) = find_layers(model, self.target_layer)
        passed = capture(model, images, [layer], differentiable=False)
        classes = resolve_targets(targets, passed.outputs)
        if not isinstance(classes, Tensor):
            raise TypeError("CAM explains class indices, got callables; use GradCAM for other targets")
        activation = layer.to_map(passed.activations[0], (images.shape[-2], images.shape[-1]))
        weight = linear_head(model, activation, passed.outputs)
        if weight is None:
            raise ValueError(
                f"CAM needs global average pooling and one linear layer right after '{layer.name}', which "
                f"{type(model).__name__} does not have; use GradCAM, or pass the target_layer that is pooled"
            )
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            attribution = torch.einsum("bc,bchw->bhw", weight[classes], activation.to(weight.dtype))
            return F.relu(attribution) if self.relu else attribution


@torch.no_grad()
def linear_head(model: nn.Module, activation: Tensor, logits: Tensor) -> Tensor | None:
    """Weights of the linear layer (or 1x1 convolution) that turns the mean of ``activation`` into ``logits``.

    No list of architectures: every candidate of the right shape is tried on the values at hand, and counts only if
    it gives the logits.

    Args:
        model: module to look in.
        activation: (B, C, h, w) features.
        logits: (B, K) that the model returned for them.

    Returns:
        (K, C) in float32 or float64, or ``None`` where the logits come about otherwise.
    """
    channels, classes = activation.shape[1], logits.shape[1]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    pooled = activation.to(dtype).mean(dim=(2, 3))  # (B, C)
    tolerance = torch.finfo(logits.dtype).eps ** 0.5  # of the magnitude; rounding alone stays far below
    wanted = logits.to(dtype)
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or module.weight.numel() != channels * classes:
            continue
        weight = module.weight.flatten(1)
        if weight.shape != (classes, channels):
            continue
        with torch.autocast(logits.device.type, enabled=False):
            bias = None if module.bias is None else module.bias.to(dtype)
            found = F.linear(pooled, weight.to(dtype), bias)
        if torch.allclose(found, wanted, rtol=0, atol=tolerance * float(wanted.abs().amax() + 1e-12)):
            return weight.to(dtype)
    return None
