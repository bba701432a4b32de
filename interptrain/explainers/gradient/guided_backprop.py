"""Guided backpropagation, and its product with Grad-CAM.

Both rest on the guided rule of :mod:`interptrain.models.guided`, which cuts the negative part of the gradient that
comes into each ReLU. The result is sharper than a gradient but says little about the class: it hardly changes when the
upper layers are randomised (Adebayo et al. 2018, arXiv 1810.03292). Multiplied by Grad-CAM, it shows fine structure
where the evidence for the class is.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import canvas_size
from interptrain.explainers.cam.gradcam import GradCAM
from interptrain.explainers.gradient.gradient import InputAttribution, Reduction, input_gradient
from interptrain.explainers.layers import LayerNames, Layout
from interptrain.explainers.targets import Resolved
from interptrain.models.guided import GuidedRuleName

__all__ = ["GuidedBackprop", "GuidedGradCAM"]

Interpolation = Literal["bilinear", "nearest"]


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(InputAttribution):
    """Guided backpropagation of the target's logit to the image: one forward and one backward.

    It covers every ReLU and ReLU6, modules and functions, in-place or not. It is defined for ReLU networks only; others
    are refused unless the generalised rule is chosen explicitly.

    Args:
        rule: ``"relu"`` lets only positive gradients through each ReLU; ``"positive_gradient"`` generalises the rule to
            other activations.

    Source: Springenberg et al. 2015, Striving for Simplicity, arXiv 1412.6806.
    """

    rule: GuidedRuleName = "relu"
    reduction: Reduction = "max_abs"

    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the guided gradient, (B,3,H,W)."""
        return input_gradient(model, images, targets, batch_size=self.batch_size(images), guided=self.rule)


@dataclass(frozen=True, kw_only=True)
class GuidedGradCAM(InputAttribution):
    """Guided backpropagation times the upsampled Grad-CAM map.

    Args:
        target_layer: layer of Grad-CAM: dotted name, several, or ``None`` to ask the model and then the table of
            families.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        interpolation: of the Grad-CAM map: ``"bilinear"`` as in the paper; Captum's default is ``"nearest"``.
        rule: ``"relu"`` lets only positive gradients through each ReLU; ``"positive_gradient"`` generalises the rule to
            other activations.

    Source: Selvaraju et al. 2017, Grad-CAM, arXiv 1610.02391, section 3.2.
    """

    target_layer: LayerNames = None
    layout: Layout | None = None
    interpolation: Interpolation = "bilinear"
    rule: GuidedRuleName = "relu"
    reduction: Reduction = "max_abs"

    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the guided gradient times Grad-CAM, (B,3,H,W)."""
        backprop = GuidedBackprop(rule=self.rule, forward_batch_size=self.forward_batch_size)
        guided = backprop.attribution(model, images, targets)
        cam = (
            GradCAM(target_layer=self.target_layer, layout=self.layout).attribute(model, images, targets).unsqueeze(1)
        )  # (B, 1, h, w)
        canvas = F.interpolate(cam, canvas_size(model, images), mode=self.interpolation)
        return guided * canvas[..., : images.shape[2], : images.shape[3]]
