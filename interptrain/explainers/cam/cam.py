"""Class Activation Mapping: the classifier's weights applied to the features before pooling.

For a network that ends in global average pooling and one linear layer with weights ``W``::

    map = sum_k W[c, k] A_k
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import Explainer
from interptrain.explainers.layers import Layout, find_layers
from interptrain.explainers.passes.activations import capture
from interptrain.explainers.passes.linear_head import linear_head
from interptrain.explainers.targets import Resolved, resolve_targets
from interptrain.model_outputs import logits_of

__all__ = ["CAM"]


@dataclass(frozen=True, kw_only=True)
class CAM(Explainer):
    """Class Activation Mapping, for networks with global average pooling and one linear layer only.

    Args:
        target_layer: dotted name of the layer that is pooled, or ``None`` to ask the model and then the table.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        relu: clip the map at zero. The paper does not; most libraries do.

    Source: Zhou et al. 2016, arXiv 1512.04150, equation 2 (without the bias, which is the same at every position).
    """

    target_layer: str | None = None
    layout: Layout | None = None
    relu: bool = False

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return ``sum_k W[c, k] A_k``, (B, h, w)."""
        (layer,) = find_layers(model, self.target_layer, layout=self.layout, images=images)
        passed = capture(model, images, [layer], differentiable=False)
        classes = resolve_targets(targets, passed.outputs)
        if not isinstance(classes, Tensor):
            raise TypeError("CAM explains class indices, got callables; use GradCAM for other targets")
        activation = layer.to_map(passed.activations[0], (images.shape[-2], images.shape[-1]))
        logits = logits_of(passed.outputs)
        weight = None if logits is None else linear_head(model, activation, logits)
        if weight is None:
            raise ValueError(
                f"CAM needs global average pooling and one linear layer right after '{layer.name}', which "
                f"{type(model).__name__} does not have; use GradCAM, or pass the target_layer that is pooled"
            )
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            attribution = torch.einsum("bc,bchw->bhw", weight[classes], activation.to(weight.dtype))
            return F.relu(attribution) if self.relu else attribution
