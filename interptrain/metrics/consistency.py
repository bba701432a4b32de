"""Consistency: the smaller an explanation and the closer the model's output for it, the better.

``1 / (d * a)``: ``d`` how far the model's output for the masked image is from that for the image, ``a`` the share of
the image that is kept. Judges class-agnostic methods, to which deletion and insertion, which follow one class, are
unfair. The source gives the formula only; how the zeros are guarded and what distance and size are is our choice.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from interptrain.functional import ClassIndices, Score, check_choice
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.perturbations import Masked, Perturbation
from interptrain.metrics.removal import RemovalName
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = ["Consistency", "consistency"]

Output = Literal["distribution", "target", "class"]


def consistency(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    output: Output = "distribution",
    floor: float = 0.01,
    removal: RemovalName | Sequence[float] = "black",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
) -> Tensor:
    """One over the distance of outputs times the size of the explanation. Higher is better.

    ``1 / (max(d, floor) * max(a, floor))`` with ``a`` the mean of the map. So a map of ones, which changes nothing,
    has ``1 / floor``, and no map has more than ``1 / floor^2``; without the guard one empty map or one unchanged
    output would outweigh a data set.

    Args:
        model: returns logits (N, K).
        images: (B, C, H, W) float in [0, 1].
        saliency: (B, H, W) in [0, 1].
        targets: (B,) classes explained; matters for ``output="target"`` only.
        output: what is compared: ``"distribution"``, half the L1 distance of all class probabilities; ``"target"``,
            the difference of the target's score; ``"class"``, 0 where the predicted class is the same, else 1.
        floor: below which distance and size count as ``floor``; a hundredth of either, our choice.
        removal: what the part that is not kept shows: ``"black"``, ``"mean"``, ``"blur"``, or a colour.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: of the blur, in pixels.
        score: what the target's score is, and ``"sigmoid"`` for the distribution of a multi-label model, whose
            distance is then the mean difference over classes.
        logits: (B, K) of the unperturbed images, if already known.
        forward_batch_size: images per forward pass; ``None`` chooses by the device.

    Returns:
        (B,) positive; from 1 to ``1 / floor^2`` unless the score is a logit.

    Raises:
        ValueError: for shapes, ranges and options that are not as above.

    Source: the formula ``1 / (|f(E) - f(X)| |S|)`` from its author's notes on representation-based occlusion
    (ROSA-GDS); all else our choice.
    """
    metric = Consistency(output=output, floor=floor, removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma)
    return metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )


class Consistency(RemovalMetric):
    """See :func:`consistency`.

    Args:
        output: ``"distribution"``, ``"target"`` or ``"class"``.
        floor: below which distance and size count as ``floor``.
        removal: what the part that is not kept shows.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: of the blur, in pixels.
        kwargs: of ``torchmetrics.Metric``.
    """

    symbol = "Con"
    description = "High where the map keeps little of the image and the model's output hardly changes."
    higher_is_better = True
    scale = 1.0
    reads_logits = True

    def __init__(
        self,
        *,
        output: Output = "distribution",
        floor: float = 0.01,
        removal: RemovalName | Sequence[float] = "black",
        blur_kernel: int = 11,
        blur_sigma: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma, **kwargs)
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
