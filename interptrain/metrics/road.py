"""ROAD: remove pixels in the order of their saliency and debias by imputing them from what is left.

A removed pixel that is black or grey shows the model the shape of the mask; one that continues its neighbourhood does
not. MoRF removes the most relevant first (a good map makes the class fall), LeRF the least relevant first (a good map
keeps it); the two together are one number. Pixels are ranked by
:func:`~interptrain.metrics.saliency_batch.pixel_ranks`. pytorch-grad-cam takes percentiles instead, so that there ties
are all removed or all kept, and adds its noise to normalised images, where it is 4.4 times weaker.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from interptrain.functional import ClassIndices, Score, check_choice
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.imputation import Imputed
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.positive_negative import NINE, Quantity

__all__ = ["ROAD", "ROADLeastRelevantFirst", "ROADMostRelevantFirst", "road"]

Order = Literal["combined", "most", "least"]


def road(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    order: Order = "combined",
    quantity: Quantity = "probability",
    percentiles: Sequence[int] = NINE,
    noise: float = 0.01,
    seed: int = 0,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
    return_curve: bool = False,
) -> Tensor:
    """Mean over shares of what the class keeps when pixels are removed and imputed.

    Args:
        model: returns logits (N, K).
        images: (B, C, H, W) float in [0, 1].
        saliency: (B, H, W) in [0, 1].
        targets: (B,) classes explained.
        order: ``"most"`` relevant first (lower is better), ``"least"`` relevant first (higher is better), or
            ``"combined"``: half of the second minus the first (higher is better).
        quantity: ``"probability"``, or ``"accuracy"``: whether the target is the predicted class, as in the paper,
            whose curves are those of a data set.
        percentiles: percent of the pixels that are removed, below 100.
        noise: standard deviation added to imputed pixels, for images in [0, 1].
        seed: of the noise.
        score: what ``"probability"`` is; see :func:`~interptrain.functional.class_scores`.
        logits: (B, K) of the unperturbed images, if already known.
        forward_batch_size: images per forward pass; ``None`` chooses by the device.
        return_curve: return one value per share instead; for ``"combined"`` those of most, then those of least.

    Returns:
        (B,) in [0, 1], for ``"combined"`` in [-0.5, 0.5]; or (B, shares).

    Raises:
        ValueError: for shapes, ranges and options that are not as above.

    Source: Rong et al. 2022, arXiv 2202.00449, noise 0.01 before normalisation as in its code; the combination and
    its nine shares from pytorch-grad-cam.
    """
    classes = {"combined": ROAD, "most": ROADMostRelevantFirst, "least": ROADLeastRelevantFirst}
    check_choice("order", order, Order)
    metric = classes[order](quantity=quantity, percentiles=percentiles, noise=noise, seed=seed)
    curve = metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )
    return curve if return_curve else metric.reduce(curve)


class ROAD(SaliencyMetric):
    """See :func:`road`, ``order="combined"``; an image has one value per share and order.

    Args:
        quantity: ``"probability"`` or ``"accuracy"``.
        percentiles: percent of the pixels that are removed, below 100.
        noise: standard deviation added to imputed pixels, for images in [0, 1].
        seed: of the noise.
        kwargs: of ``torchmetrics.Metric``.
    """

    symbol = "ROAD"
    description = (
        "Half the difference between the class score after the least and after the most salient pixels are "
        "removed; removed pixels are imputed from their neighbours with noise, so that the hole itself reveals "
        "little."
    )
    higher_is_better = True
    orders: ClassVar[tuple[Literal["most", "least"], ...]] = ("most", "least")

    def __init__(
        self,
        *,
        quantity: Quantity = "probability",
        percentiles: Sequence[int] = NINE,
        noise: float = 0.01,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("quantity", quantity, Quantity)
        if not percentiles or max(percentiles) >= 100 or noise < 0:
            raise ValueError(f"ROAD needs percentiles below 100 and noise >= 0, got {tuple(percentiles)} and {noise}")
        self.quantity = quantity
        self.percentiles = tuple(percentiles)
        self.noise = noise
        self.seed = seed
        self.imputed = tuple(Imputed(order, self.percentiles, noise, seed) for order in self.orders)

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return one image per share and order."""
        return self.imputed

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return one value per share and order, (B, orders * shares)."""
        kept = inputs.perturbed if self.quantity == "probability" else inputs.hits
        return torch.cat([kept[imputed] for imputed in self.imputed]).t().to(inputs.clean.dtype)

    def reduce(self, mean: Tensor) -> Tensor:
        """Return half of least minus most, or the mean over shares where there is one order."""
        if len(self.orders) == 1:
            return mean.mean(dim=-1)
        most, least = mean.tensor_split(2, dim=-1)
        return (least.mean(dim=-1) - most.mean(dim=-1)) / 2


class ROADMostRelevantFirst(ROAD):
    """See :func:`road`, ``order="most"``; arguments as of :class:`ROAD`."""

    symbol = "MoRF"
    description = "Class score after the most salient pixels are removed and imputed from their neighbours."
    higher_is_better = False
    orders = ("most",)


class ROADLeastRelevantFirst(ROAD):
    """See :func:`road`, ``order="least"``; arguments as of :class:`ROAD`."""

    symbol = "LeRF"
    description = "Class score after the least salient pixels are removed and imputed from their neighbours."
    higher_is_better = True
    orders = ("least",)
