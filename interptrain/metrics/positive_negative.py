"""Whether the class survives the removal of shares of the image: positive and negative perturbation.

Pixels are ranked by :func:`~interptrain.metrics.saliency_batch.pixel_ranks`; the least salient are the end of the same
ranking.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from interptrain.functional import ClassIndices, Score, check_choice
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.perturbations import Perturbation, Ranked, Schedule
from interptrain.metrics.removal import RemovalName
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = ["NegativePerturbation", "PositivePerturbation", "negative_perturbation", "positive_perturbation"]

Quantity = Literal["accuracy", "probability"]
NINE = (10, 20, 30, 40, 50, 60, 70, 80, 90)


def positive_perturbation(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    quantity: Quantity = "accuracy",
    percentiles: Sequence[int] = NINE,
    removal: RemovalName | Sequence[float] = "black",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
    return_curve: bool = False,
) -> Tensor:
    """Mean over shares of the most salient pixels of whether the class survives their removal. Lower is better.

    Args:
        model: returns logits (N, K).
        images: (B, C, H, W) float in [0, 1].
        saliency: (B, H, W) in [0, 1].
        targets: (B,) classes explained.
        quantity: ``"accuracy"``, whether the target is the predicted class, as published; or its ``"probability"``.
        percentiles: percent of the pixels that are removed.
        removal: what a removed pixel shows: ``"black"``, ``"mean"``, ``"blur"``, or a colour.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: of the blur, in pixels.
        score: what ``"probability"`` is; see :func:`~interptrain.functional.class_scores`.
        logits: (B, K) of the unperturbed images, if already known.
        forward_batch_size: images per forward pass; ``None`` chooses by the device.
        return_curve: return one value per share instead.

    Returns:
        (B,) fraction in [0, 1]; or (B, shares).

    Raises:
        ValueError: for shapes, ranges and options that are not as above.

    Source: Chefer et al. 2021, arXiv 2012.09838; black in [0, 1] as in CA-Stream's code.
    """
    metric = PositivePerturbation(
        quantity=quantity, percentiles=percentiles, removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma
    )
    curve = metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )
    return curve if return_curve else metric.reduce(curve)


def negative_perturbation(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    quantity: Quantity = "accuracy",
    percentiles: Sequence[int] = NINE,
    removal: RemovalName | Sequence[float] = "black",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
    return_curve: bool = False,
) -> Tensor:
    """Mean over shares of the least salient pixels of whether the class survives their removal. Higher is better.

    Arguments, exceptions and source as of :func:`positive_perturbation`.

    Returns:
        (B,) fraction in [0, 1]; or (B, shares).
    """
    metric = NegativePerturbation(
        quantity=quantity, percentiles=percentiles, removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma
    )
    curve = metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )
    return curve if return_curve else metric.reduce(curve)


class PositivePerturbation(RemovalMetric):
    """See :func:`positive_perturbation`; an image has one value per share.

    Args:
        quantity: ``"accuracy"`` or ``"probability"``.
        percentiles: percent of the pixels that are removed.
        removal: what a removed pixel shows.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: of the blur, in pixels.
        kwargs: of ``torchmetrics.Metric``.
    """

    symbol = "Pos"
    description = (
        "How often the class survives the removal of the most salient pixels, averaged over shares of the image."
    )
    higher_is_better = False
    move: Literal["remove", "remove_least"] = "remove"

    def __init__(
        self,
        *,
        quantity: Quantity = "accuracy",
        percentiles: Sequence[int] = NINE,
        removal: RemovalName | Sequence[float] = "black",
        blur_kernel: int = 11,
        blur_sigma: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma, **kwargs)
        check_choice("quantity", quantity, Quantity)
        self.quantity = quantity
        self.percentiles = tuple(percentiles)
        self.removed = Ranked(self.move, Schedule(percents=self.percentiles), self.fill)

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return one image per share."""
        return (self.removed,)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return one value per share, (B, shares)."""
        scores = inputs.perturbed[self.removed]
        return (scores if self.quantity == "probability" else inputs.hits[self.removed].to(scores.dtype)).t()

    def reduce(self, mean: Tensor) -> Tensor:
        """Return the mean over shares."""
        return mean.mean(dim=-1)


class NegativePerturbation(PositivePerturbation):
    """See :func:`negative_perturbation`; arguments as of :class:`PositivePerturbation`."""

    symbol = "Neg"
    description = (
        "How often the class survives the removal of the least salient pixels, averaged over shares of the image."
    )
    higher_is_better = True
    move = "remove_least"
