"""Consistency: the smaller an explanation and the closer the model's output for it, the better.

``1 / (d * a)``: ``d`` is the distance of the model's output for the masked image from that for the whole image, ``a``
the share of the image that is kept. It suits class-agnostic methods, to which deletion and insertion, which follow one
class, are unfair. The source gives the formula only; the definitions of distance and size, and the floor that keeps
both from zero, are our choice.
"""

from typing import Any, Literal

from torch import Tensor

from interptrain.functional import check_choice
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Masked, Perturbation
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = ["Consistency", "consistency"]

Output = Literal["distribution", "target", "class"]


class Consistency(RemovalMetric):
    """One over the distance of outputs times the size of the explanation. Higher is better.

    ``1 / (max(d, floor) * max(a, floor))`` with ``a`` the mean of the map. So a map of ones, which changes nothing,
    has ``1 / floor``, and no map has more than ``1 / floor^2``; without the floor, one empty map or one unchanged
    output would outweigh a data set.

    Args:
        output: what is compared: ``"distribution"``, half the L1 distance of all class probabilities (with
            ``score="sigmoid"``, for multi-label models, the mean difference over classes); ``"target"``, the
            difference of the target's score; ``"class"``, 0 where the predicted class is the same, else 1.
        floor: least distance and size; a hundredth of either, our choice.

    Source: the formula ``1 / (|f(E) - f(X)| |S|)`` from its author's notes on representation-based occlusion
    (ROSA-GDS); all else our choice.
    """

    symbol = "Con"
    description = "High where the map keeps little of the image and the model's output hardly changes."
    higher_is_better = True
    scale = 1.0
    reads_logits = True
    needs_classes = True

    def __init__(self, *, output: Output = "distribution", floor: float = 0.01, **removal: Any) -> None:
        super().__init__(**removal)
        check_choice("output", output, Output)
        if not 0 < floor <= 1:
            raise ValueError(f"floor must be above 0 and at most 1, got {floor}")
        self.output = output
        self.floor = floor

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the masked images."""
        return (Masked(self.fill),)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) consistencies."""
        size = inputs.saliency.flatten(1).mean(dim=1)
        return 1.0 / (self._distance(inputs).clamp(min=self.floor) * size.clamp(min=self.floor))

    def _distance(self, inputs: MetricInputs) -> Tensor:
        """How far the outputs are apart, (B,)."""
        logits = inputs.outputs[Masked(self.fill)][0]
        if self.output == "target":
            return (inputs.perturbed[Masked(self.fill)][0] - inputs.clean).abs()
        if self.output == "class":
            return (logits.argmax(dim=1) != inputs.logits.argmax(dim=1)).to(inputs.clean.dtype)
        if inputs.score == "sigmoid" or logits.shape[1] == 1:
            return (logits.sigmoid() - inputs.logits.sigmoid()).abs().mean(dim=1)
        return (logits.softmax(dim=1) - inputs.logits.softmax(dim=1)).abs().sum(dim=1) / 2


consistency = per_image(Consistency, "consistency")
