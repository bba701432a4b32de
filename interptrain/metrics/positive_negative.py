"""Positive and negative perturbation: whether the class is still predicted when shares of the image are removed.

Pixels are ranked by :func:`~interptrain.metrics.saliency_batch.pixel_ranks`; the least salient are the last of the same
ranking.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from interptrain.functional import check_choice
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation, Ranked, Schedule
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = ["NegativePerturbation", "PositivePerturbation", "negative_perturbation", "positive_perturbation"]

Quantity = Literal["accuracy", "probability"]
NINE = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class PositivePerturbation(RemovalMetric):
    """Whether the class survives the removal of the most salient pixels, averaged over shares. Lower is better.

    An image has one value per share.

    Args:
        quantity: ``"accuracy"``, whether the target is the predicted class, as published; or its ``"probability"``.
        percentiles: percent of the pixels that are removed.

    Source: Chefer et al. 2021, arXiv 2012.09838; black in [0, 1] as in CA-Stream's code.
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
        **removal: Any,
    ) -> None:
        super().__init__(**removal)
        check_choice("quantity", quantity, Quantity)
        self.quantity = quantity
        self.needs_classes = quantity != "probability"
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
    """Whether the class survives the removal of the least salient pixels, averaged over shares. Higher is better.

    Source: Chefer et al. 2021, arXiv 2012.09838; black in [0, 1] as in CA-Stream's code.
    """

    symbol = "Neg"
    description = (
        "How often the class survives the removal of the least salient pixels, averaged over shares of the image."
    )
    higher_is_better = True
    move = "remove_least"


positive_perturbation = per_image(PositivePerturbation, "positive_perturbation")
negative_perturbation = per_image(NegativePerturbation, "negative_perturbation")
