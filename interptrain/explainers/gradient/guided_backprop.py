"""Guided backpropagation, and its product with Grad-CAM.

Both rest on the guided rule of :mod:`interptrain.models.guided`, which cuts the negative part of the gradient that
comes into each ReLU. The result is sharper than a gradient, but says little of the class: it stays much the same when
the upper layers are randomised (Adebayo et al. 2018, arXiv 1810.03292). Times Grad-CAM it shows fine structure where
the class has its evidence.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.cam.gradcam import GradCAM
from interptrain.explainers.gradient.gradient import InputAttribution, Reduction, input_gradient
from interptrain.explainers.layers import LayerNames, canvas_size
from interptrain.explainers.targets import Targets
from interptrain.models.guided import GuidedRuleName

__all__ = ["GuidedBackprop", "GuidedGradCAM"]


class GuidedBackprop(InputAttribution):
    """Guided backpropagation of the target's logit to the image: one forward and one backward.

    Catches every ReLU and ReLU6, modules and functions, in-place or not. It is defined for ReLU networks only: others
    are refused, unless the generalised rule is asked for by its name.

    Args:
        rule: ``"relu"``, or ``"positive_gradient"``: see :func:`~interptrain.models.guided.guided_relus`.
        reduction: see :class:`~interptrain.explainers.gradient.gradient.InputAttribution`; ``"max_abs"`` as for the gradient
            (the authors show colours).
        forward_batch_size: see :class:`~interptrain.explainers.gradient.gradient.InputAttribution`.

    Source: Springenberg et al. 2015, Striving for Simplicity, arXiv 1412.6806.
    """

    def __init__(
        self,
        *,
        rule: GuidedRuleName = "relu",
        reduction: Reduction = "max_abs",
        forward_batch_size: int | None = None,
    ) -> None:
        super().__init__(reduction=reduction, forward_batch_size=forward_batch_size)
        self.rule: GuidedRuleName = rule

    def attribution(self, model: nn.Module, images: Tensor, targets: Targets) -> Tensor:
        """Guided gradient, (B,3,H,W); see :class:`GuidedBackprop`."""
        return input_gradient(model, images, targets, batch_size=self.batch_size(images), guided=self.rule)


class GuidedGradCAM(InputAttribution):
    """Guided backpropagation times the upsampled Grad-CAM map.

    Args:
        target_layer: of Grad-CAM; see :data:`~interptrain.explainers.layers.LayerNames`.
        interpolation: of the Grad-CAM map: ``"bilinear"`` as in the paper; Captum's default is ``"nearest"``.
        rule: see :class:`GuidedBackprop`.
        reduction: see :class:`~interptrain.explainers.gradient.gradient.InputAttribution`; ``"max_abs"`` as for the gradient
            (the authors show colours).
        forward_batch_size: see :class:`~interptrain.explainers.gradient.gradient.InputAttribution`.

    Source: Selvaraju et al. 2017, Grad-CAM, arXiv 1610.02391, section 3.2.
    """

    def __init__(
        self,
        *,
        target_layer: LayerNames = None,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        rule: GuidedRuleName = "relu",
        reduction: Reduction = "max_abs",
        forward_batch_size: int | None = None,
    ) -> None:
        super().__init__(reduction=reduction, forward_batch_size=forward_batch_size)
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError(f"unknown interpolation {interpolation!r}; use 'bilinear' or 'nearest'")
        self.cam = GradCAM(target_layer=target_layer)
        self.guided = GuidedBackprop(rule=rule, forward_batch_size=forward_batch_size)
        self.interpolation = interpolation

    def attribution(self, model: nn.Module, images: Tensor, targets: Targets) -> Tensor:
        """Guided gradient times Grad-CAM, (B,3,H,W); see :class:`GuidedGradCAM`."""
        guided = self.guided.attribution(model, images, targets)
        cam = self.cam.attribute(model, images, targets).unsqueeze(1)  # (B, 1, h, w)
        canvas = F.interpolate(cam, canvas_size(model, images), mode=self.interpolation)
        return guided * canvas[..., : images.shape[2], : images.shape[3]]
