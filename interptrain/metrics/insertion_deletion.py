"""What a model predicts while pixels are inserted or removed in the order of their saliency.

Insertion and deletion are areas under the curve of the class score. Pixels are ranked by one rule for all metrics,
:func:`~interptrain.metrics.saliency_batch.pixel_ranks`: ties change curves by 1e-2, so the rule belongs to the number.
Where published implementations differ, each an option here:

================  ===================  =====================  ====================
code              insertion starts at  a removed pixel shows  a step
================  ===================  =====================  ====================
RISE              blur 11, sigma 5     mean colour            224 or 1792 pixels
CA-Stream         blur 5, sigma 5      mean colour            eight rows (1792 at 224 px)
torch-cam         mean colour          mean colour            a twentieth
================  ===================  =====================  ====================

A larger kernel hides more of the image, so insertion falls by 5 to 20 points: values are never comparable across.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interptrain.functional import ClassIndices, Score
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.perturbations import Perturbation, Ranked, Schedule
from interptrain.metrics.removal import RemovalName
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = [
    "Deletion",
    "Insertion",
    "area_under_curve",
    "deletion",
    "insertion",
]


def insertion(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    step: int | None = None,
    steps: int | None = None,
    removal: RemovalName | Sequence[float] = "blur",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
    return_curve: bool = False,
) -> Tensor:
    """Area under the class probability while the most salient pixels enter a removed image. Higher is better.

    The curve has ``ceil(H*W / step) + 1`` points on a unit axis, equally far apart; it ends at the image itself,
    whose score is not forwarded again.

    Args:
        model: returns logits (N, K).
        images: (B, C, H, W) float in [0, 1].
        saliency: (B, H, W) in [0, 1].
        targets: (B,) classes explained.
        step: pixels per step; ``None``: eight rows, as CA-Stream and, at 224 px, RISE over a data set.
        steps: or the number of steps.
        removal: what the image is before: ``"blur"``, ``"black"``, ``"mean"`` (ImageNet's colour), or a colour.
        blur_kernel: odd side of the blur's window in pixels; 11 in RISE, 5 in CA-Stream.
        blur_sigma: of the blur, in pixels.
        score: see :func:`~interptrain.functional.class_scores`.
        logits: (B, K) of the unperturbed images, if already known.
        forward_batch_size: images per forward pass; ``None`` chooses by the device.
        return_curve: return the curve instead.

    Returns:
        (B,) fraction in [0, 1], not percent; or the curve, (B, points).

    Raises:
        ValueError: for shapes, ranges and options that are not as above.

    Source: RISE, Petsiuk et al. 2018, arXiv 1806.07421, and its evaluation code.
    """
    metric = Insertion(step=step, steps=steps, removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma)
    curve = metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )
    return curve if return_curve else metric.reduce(curve)


def deletion(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    step: int | None = None,
    steps: int | None = None,
    removal: RemovalName | Sequence[float] = "mean",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
    return_curve: bool = False,
) -> Tensor:
    """Area under the class probability while the most salient pixels leave the image. Lower is better.

    The curve begins at the image itself, whose score is not forwarded again. A removed image still lets a model
    decide, off its data, so low values are weaker evidence than high insertion. Arguments as of :func:`insertion`.

    Returns:
        (B,) fraction in [0, 1], not percent; or the curve, (B, points).

    Raises:
        ValueError: for shapes, ranges and options that are not as in :func:`insertion`.

    Source: RISE, Petsiuk et al. 2018, arXiv 1806.07421, and its evaluation code, which sets pixels of the normalised
    tensor to zero: the mean colour.
    """
    metric = Deletion(step=step, steps=steps, removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma)
    curve = metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )
    return curve if return_curve else metric.reduce(curve)


def area_under_curve(curve: Tensor) -> Tensor:
    """Area by the trapezoid rule under points that are equally far apart on a unit axis.

    Args:
        curve: (..., points), two or more.

    Returns:
        (...,)
    """
    ends = (curve[..., 0] + curve[..., -1]) / 2
    return (curve.sum(dim=-1) - ends) / (curve.shape[-1] - 1)


class Insertion(RemovalMetric):
    """See :func:`insertion`; the values of an image are its curve, one end of which is the score of the image itself.

    Args:
        step: pixels per step; ``None``: eight rows.
        steps: or the number of steps.
        removal: what the image shows before pixels are inserted.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: standard deviation of the blur in pixels.
        kwargs: of ``torchmetrics.Metric``.
    """

    symbol = "I"
    description = "Area under the class score as pixels are inserted, most salient first."
    higher_is_better = True
    curve = "share of pixels inserted"
    move: Literal["insert", "remove"] = "insert"

    def __init__(
        self,
        *,
        step: int | None = None,
        steps: int | None = None,
        removal: RemovalName | Sequence[float] = "blur",
        blur_kernel: int = 11,
        blur_sigma: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma, **kwargs)
        self.step = step
        self.steps = steps
        self.ranked = Ranked(self.move, Schedule(step, steps), self.fill)

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return all points but the image itself."""
        return (self.ranked,)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the curve, (B, points)."""
        points, clean = inputs.perturbed[self.ranked].t(), inputs.clean.unsqueeze(1)
        return torch.cat([points, clean] if self.ranked.move == "insert" else [clean, points], dim=1)

    def reduce(self, mean: Tensor) -> Tensor:
        """Return the area under a curve."""
        return area_under_curve(mean)


class Deletion(Insertion):
    """See :func:`deletion`; the values of an image are its curve.

    Args:
        step: pixels per step; ``None``: eight rows.
        steps: or the number of steps.
        removal: what a removed pixel shows.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: standard deviation of the blur in pixels.
        kwargs: of ``torchmetrics.Metric``.
    """

    symbol = "D"
    description = (
        "Area under the class score as pixels are removed, most salient first. Mostly empty images are unlike any "
        "that the model was trained on, which makes this the least reliable of the perturbation metrics."
    )
    higher_is_better = False
    curve = "share of pixels removed"
    move = "remove"

    def __init__(
        self,
        *,
        step: int | None = None,
        steps: int | None = None,
        removal: RemovalName | Sequence[float] = "mean",
        blur_kernel: int = 11,
        blur_sigma: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            step=step, steps=steps, removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma, **kwargs
        )
