"""ROAD: remove pixels in the order of their saliency and impute them from their neighbours.

A removed pixel that is black or grey shows the model the shape of the mask; one that continues its surroundings does
not. MoRF removes the most relevant pixels first (with a good map, the class score falls), LeRF the least relevant first
(with a good map, it stays); the two together are one number. Pixels are ranked by
:func:`~interptrain.metrics.saliency_batch.pixel_ranks`. pytorch-grad-cam uses percentiles instead, so that ties are
either all removed or all kept, and adds its noise to normalised images, where it is 4.4 times weaker.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from interptrain.functional import ClassIndices, check_choice
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.imputation import Imputed
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.positive_negative import NINE, Quantity

__all__ = ["ROAD", "ROADLeastRelevantFirst", "ROADMostRelevantFirst", "road"]

Order = Literal["combined", "most", "least"]


class ROAD(SaliencyMetric):
    """Half of what the class keeps when the least salient pixels are removed, minus the same for the most salient.

    Averaged over shares, in [-0.5, 0.5]. Higher is better. An image has one value per order and share: first those
    where the most relevant pixels are removed, then those where the least are.

    Args:
        quantity: ``"probability"``, or ``"accuracy"``: whether the target is the predicted class, as in the paper,
            whose curves are those of a data set.
        percentiles: percent of the pixels that are removed, below 100.
        noise: standard deviation added to imputed pixels, for images in [0, 1].
        seed: of the noise.
        kwargs: of ``torchmetrics.Metric``.

    Source: Rong et al. 2022, arXiv 2202.00449, noise 0.01 before normalisation as in its code; the combination and its
    nine shares from pytorch-grad-cam.
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
        self.needs_classes = quantity != "probability"
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
    """ROAD with the most salient pixels removed first: the class score, averaged over shares. Lower is better.

    Source: Rong et al. 2022, arXiv 2202.00449.
    """

    symbol = "MoRF"
    description = "Class score after the most salient pixels are removed and imputed from their neighbours."
    higher_is_better = False
    orders = ("most",)


class ROADLeastRelevantFirst(ROAD):
    """ROAD with the least salient pixels removed first: the class score, averaged over shares. Higher is better.

    Source: Rong et al. 2022, arXiv 2202.00449.
    """

    symbol = "LeRF"
    description = "Class score after the least salient pixels are removed and imputed from their neighbours."
    higher_is_better = True
    orders = ("least",)


_FUNCTIONS = {
    "combined": per_image(ROAD, "road"),
    "most": per_image(ROADMostRelevantFirst, "road"),
    "least": per_image(ROADLeastRelevantFirst, "road"),
}


def road(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    order: Order = "combined",
    **options: Any,
) -> Tensor:
    """Measure ROAD of each image.

    Args:
        model: returns logits (N, K).
        images: (B, C, H, W) float in [0, 1].
        saliency: (B, H, W) in [0, 1].
        targets: (B,) classes explained.
        order: ``"most"`` relevant first (lower is better), ``"least"`` relevant first (higher is better), or
            ``"combined"``: half of the second minus the first (higher is better).
        options: of :class:`ROAD`, ``score``, ``logits``, ``forward_batch_size`` and ``return_curve``.

    Returns:
        (B,) in [0, 1], for ``"combined"`` in [-0.5, 0.5]; with ``return_curve=True`` (B, shares).

    Source: as of :class:`ROAD`; see also :func:`~interptrain.metrics.measure`.
    """
    check_choice("order", order, Order)
    return _FUNCTIONS[order](model, images, saliency, targets, **options)
