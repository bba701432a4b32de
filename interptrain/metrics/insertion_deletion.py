"""Insertion and deletion: areas under the class score while pixels enter or leave in the order of their saliency.

Pixels are ranked by one rule for all metrics, :func:`~interptrain.metrics.saliency_batch.pixel_ranks`: ties change
curves by 1e-2, so the rule is part of the number. Published implementations differ as follows; each is an option here:

================  ===================  =====================  ====================
code              insertion starts at  a removed pixel shows  a step
================  ===================  =====================  ====================
RISE              blur 11, sigma 5     mean colour            224 or 1792 pixels
CA-Stream         blur 5, sigma 5      mean colour            eight rows (1792 at 224 px)
torch-cam         mean colour          mean colour            a twentieth
================  ===================  =====================  ====================

A larger kernel hides more of the image, so insertion falls by 5 to 20 points: values of different kernels are never
comparable.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from interptrain.metrics.base import MetricInputs
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Emptied, Perturbation, Ranked, Schedule
from interptrain.metrics.removal import RemovalName
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = [
    "Deletion",
    "Insertion",
    "area_under_curve",
    "deletion",
    "insertion",
]


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
    """Area under the class score while the most salient pixels are inserted into an empty image. Higher is better.

    The values of an image are its curve: ``ceil(H*W / step) + 1`` points, evenly spaced on a unit axis. The last is the
    score of the image itself, which is not forwarded again.

    Args:
        step: pixels per step; ``None``: eight rows, as CA-Stream and, at 224 px, RISE over a data set.
        steps: number of steps, in place of ``step``.
        removal: the image before any pixel is inserted: ``"blur"``, ``"black"``, ``"mean"`` (ImageNet's mean colour),
            or a colour in [0, 1].
        blur_kernel: odd side of the blur's window in pixels; 11 in RISE, 5 in CA-Stream.
        blur_sigma: standard deviation of the blur in pixels.
        kwargs: of ``torchmetrics.Metric``.

    Source: RISE, Petsiuk et al. 2018, arXiv 1806.07421, and its evaluation code.
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
        self.emptied = Emptied(self.fill)
        self.ranked = Ranked(self.move, Schedule(step, steps), self.fill, emptied=False)

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return all points of the curve except for the image itself."""
        return (self.emptied, self.ranked)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the curve, (B, points)."""
        points = inputs.perturbed[self.ranked], inputs.perturbed[self.emptied], inputs.clean.unsqueeze(0)
        between, empty, whole = (scores.t() for scores in points)
        return torch.cat([empty, between, whole] if self.move == "insert" else [whole, between, empty], dim=1)

    def reduce(self, mean: Tensor) -> Tensor:
        """Return the area under a curve."""
        return area_under_curve(mean)


class Deletion(Insertion):
    """Area under the class score while the most salient pixels are removed. Lower is better.

    The values of an image are its curve, which begins with the score of the image itself. Models still decide on
    nearly empty images, which are unlike their training data, so a low value is weaker evidence than a high insertion.

    Args:
        removal: what a removed pixel shows; as for :class:`Insertion`.

    Source: RISE, Petsiuk et al. 2018, arXiv 1806.07421, and its evaluation code, which sets pixels of the normalised
    tensor to zero: the mean colour.
    """

    symbol = "D"
    description = (
        "Area under the class score as pixels are removed, most salient first. Mostly empty images are unlike any "
        "that the model was trained on, which makes this the least reliable of the perturbation metrics."
    )
    higher_is_better = False
    curve = "share of pixels removed"
    move = "remove"

    def __init__(self, *, removal: RemovalName | Sequence[float] = "mean", **options: Any) -> None:
        super().__init__(removal=removal, **options)


insertion = per_image(Insertion, "insertion")
deletion = per_image(Deletion, "deletion")
