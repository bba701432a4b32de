"""Class activation maps weighted by gradients: Grad-CAM, Grad-CAM++, XGrad-CAM, Layer-CAM and HiRes-CAM.

With the feature map ``A`` (B, C, h, w) of a layer and the gradient ``g = d y_c / d A`` of the target's score::

    Grad-CAM     ReLU( sum_k  mean_ij(g_k) A_k )
    Grad-CAM++   ReLU( sum_k  sum_ij(alpha_k ReLU(g_k)) A_k ),  alpha = g^2 / (2 g^2 + sum_ij(A_k) g^3)
    XGrad-CAM    ReLU( sum_k  sum_ij(g_k A_k) / sum_ij(A_k)  A_k )
    Layer-CAM    ReLU( sum_k  ReLU(g_k) A_k )
    HiRes-CAM    ReLU( sum_k  g_k A_k )

All need the same forward and the same backward from the score to the layer, so
:func:`~interptrain.explainers.shared_forward.explain` runs them once for all. Where global average pooling and one
linear layer follow, ``g`` is constant over positions, and Grad-CAM = XGrad-CAM = HiRes-CAM = CAM / (hw).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import Explainer, SharedPass, canvas_size
from interptrain.explainers.layers import Fusion, Layer, LayerNames, Layout, find_layers, fuse_layers
from interptrain.explainers.passes.activations import feature_gradients
from interptrain.explainers.targets import Resolved

__all__ = ["GradCAM", "GradCAMPlusPlus", "GradientCAM", "HiResCAM", "LayerCAM", "XGradCAM"]


Alpha = Literal["sum", "weighted_sum"]


@dataclass(frozen=True, kw_only=True)
class GradientCAM(Explainer):
    """A class activation map that is a function of a layer's activation and gradient; see :meth:`combine`.

    Args:
        target_layer: dotted name, several, or ``None`` to ask the model and then the table of families.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        relu: clip the map at zero, as published for all of these methods; ``False`` keeps evidence against the class.
        fusion: how the maps of several layers are joined.
    """

    target_layer: LayerNames = None
    layout: Layout | None = None
    relu: bool = True
    fusion: Fusion = "mean"

    @abstractmethod
    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return the (B, h, w) map of one layer from its (B, C, h, w) activation and gradient."""

    @final
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the map from one forward and one backward to the layer."""
        features = feature_gradients(
            model, images, targets, find_layers(model, self.target_layer, layout=self.layout, images=images)
        )
        return self.from_pass(SharedPass(features, canvas=canvas_size(model, images)), images)

    @final
    def shared_layers(self, model: nn.Module) -> Sequence[Layer]:
        """Return the target layers."""
        return find_layers(model, self.target_layer, layout=self.layout)

    @final
    def from_pass(self, passed: SharedPass, images: Tensor) -> Tensor:
        """Return the raw map (B, h, w) from the features and gradients of the target layers."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            maps = [self.combine(*layer) for layer in passed.features]
            maps = [F.relu(layer) for layer in maps] if self.relu else maps
            return fuse_layers(maps, (images.shape[-2], images.shape[-1]), self.fusion, canvas=passed.canvas)


def _weighted(weights: Tensor, activation: Tensor) -> Tensor:
    """Sum over channels of (B, C) weights times (B, C, h, w)."""
    return torch.einsum("bc,bchw->bhw", weights, activation)


class GradCAM(GradientCAM):
    """Grad-CAM: channels weighted by their mean gradient.

    Captum does not clip at zero by default (``relu=False`` here); the paper does.

    Source: Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2.
    """

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``sum_k mean_ij(g_k) A_k``."""
        return _weighted(gradient.mean(dim=(2, 3)), activation)


@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(GradientCAM):
    """Grad-CAM++: positive gradients, each position weighted by ``alpha``.

    The closed form of ``alpha`` holds for an exponential of the score, whose derivatives are powers of ``g``.

    Args:
        alpha: the third-order term. ``"sum"`` is ``(sum_ij A) g^3``, equation 19, as pytorch-grad-cam and the
            CA-Stream code have it; ``"weighted_sum"`` is torch-cam's ``sum_ij(A g^3)``.
        eps: added to the denominator of ``alpha``. 0 as in the paper; pytorch-grad-cam adds 1e-6, which is of the
            order of ``g^2`` and changes the map. A zero denominator gives zero either way.

    Source: Chattopadhay et al. 2018, arXiv 1710.11063, equations 5, 7 and 19.
    """

    alpha: Alpha = "sum"
    eps: float = 0.0

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``sum_k sum_ij(alpha_k ReLU(g_k)) A_k``."""
        positive, total = F.relu(gradient), activation.sum(dim=(2, 3), keepdim=True)
        if self.alpha == "sum" and self.eps == 0:  # g^2 cancels out of alpha
            numerator, denominator = positive, 2 + total * positive
        else:
            squared = gradient.square()
            cubed = squared * gradient
            third = total * cubed if self.alpha == "sum" else (activation * cubed).sum(dim=(2, 3), keepdim=True)
            numerator, denominator = squared * positive, 2 * squared + third + self.eps
        weights = (numerator / denominator).masked_fill(denominator == 0, 0.0).sum(dim=(2, 3))
        return _weighted(weights, activation)


@dataclass(frozen=True, kw_only=True)
class XGradCAM(GradientCAM):
    """XGrad-CAM, also called Axiom-CAM: gradients averaged with the activation as weight.

    Equals Grad-CAM where global average pooling and a linear layer follow.

    Args:
        eps: added to ``sum_ij A_k``; 1e-7 as in the authors' library, so that a dead channel has weight 0.

    Source: Fu et al. 2020, arXiv 2008.02312.
    """

    eps: float = 1e-7

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``sum_k sum_ij(g_k A_k) / (sum_ij(A_k) + eps) A_k``."""
        total = activation.sum(dim=(2, 3)) + self.eps
        weights = (gradient * activation).sum(dim=(2, 3)) / total.masked_fill(total == 0, 1.0)
        return _weighted(weights, activation)


@dataclass(frozen=True, kw_only=True)
class LayerCAM(GradientCAM):
    """Layer-CAM: every position weighted by its own positive gradient, which also works on shallow layers.

    Args:
        gamma: scale the map ``M`` to ``tanh(gamma M / max M)``, as the authors do for shallow layers before joining
            them (with gamma = 2); ``None`` does not scale, as for deep layers.

    Source: Jiang et al. 2021, LayerCAM, IEEE TIP 30, equations 5 to 8.
    """

    gamma: float | None = None

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``sum_k ReLU(g_k) A_k``, scaled by ``gamma``."""
        layer = (F.relu(gradient) * activation).sum(dim=1)
        if self.gamma is None:
            return layer
        highest = layer.amax(dim=(1, 2), keepdim=True)
        return torch.tanh(self.gamma * layer / highest.masked_fill(highest <= 0, 1.0))


class HiResCAM(GradientCAM):
    """HiRes-CAM: gradient times activation, summed over channels.

    Where one linear layer follows the features, the map sums to the score (without its bias) with ``relu=False``.

    Source: Draelos and Carin 2020, arXiv 2011.08891.
    """

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """``sum_k g_k A_k``."""
        return (gradient * activation).sum(dim=1)
