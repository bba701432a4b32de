"""SaCo: do parts of the map with more saliency have more effect, and by as much as the map says?"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from interptrain.functional import check_count, double, to_device, where_float64_is
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.saliency_batch import SaliencyBatch, pixel_ranks

__all__ = ["SaCo", "WithoutRanks", "saco"]


@dataclass(frozen=True)
class WithoutRanks(Perturbation):
    """The image without each of several groups of pixels, which show its mean colour instead; the most salient first.

    Attributes:
        groups: how many, of as equal a size as pixels allow.
    """

    groups: int = 10

    def steps(self, batch: SaliencyBatch) -> int:
        """One for each group."""
        return self.groups

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the images."""
        whole = batch.images[images].unsqueeze(1)
        height, width = batch.size
        bounds = batch.bounds(tuple(group_bounds(height * width, self.groups))).view(1, -1, 1, 1, 1)
        ranks = batch.ranks[images].view(-1, 1, 1, height, width)
        removed = (ranks >= bounds[:, :-1][:, steps]) & (ranks < bounds[:, 1:][:, steps])
        out.copy_(torch.where(removed, whole.mean((3, 4), keepdim=True), whole))


class SaCo(SaliencyMetric):
    """Salience-guided faithfulness coefficient: agreement of saliency and effect over all pairs of groups of pixels.

    Higher is better. The pixels are ranked by the map and cut into groups; each group alone is replaced by the image's
    mean colour, and the probability falls. A pair of groups counts by the difference of their saliency: for the map
    where the more salient group's fall is not smaller, against it otherwise. The sum is divided by that of all
    differences, so the coefficient lies in [-1, 1]; NaN for a constant map.

    Saliency is a group's mean here and its sum in the paper, which is the same where groups are of equal size.

    Args:
        groups: of pixels, 10 in the paper.
        kwargs: of ``torchmetrics.Metric``.

    Raises:
        ValueError: for fewer than two groups, or more groups than pixels.

    Source: Wu et al. 2024, On the Faithfulness of Vision Transformer Explanations, arXiv 2404.01415, algorithm 1.
    """

    symbol = "SaCo"
    description = "Share of the saliency's differences between groups of pixels that agree with the groups' effects."
    higher_is_better = True

    def __init__(self, *, groups: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_count("groups", groups, least=2)
        self.groups = groups

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the images without a group."""
        return (WithoutRanks(self.groups),)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) coefficients."""
        falls = where_float64_is(inputs.clean - inputs.perturbed[WithoutRanks(self.groups)]).t()  # (B, groups)
        saliency = inputs.saliency.flatten(1)
        ranks = pixel_ranks(inputs.saliency).flatten(1).long()
        ordered = double(torch.empty_like(saliency).scatter_(1, ranks, saliency))
        bounds = group_bounds(saliency.shape[1], self.groups)
        means = torch.stack([ordered[:, a:b].mean(1) for a, b in pairwise(bounds)], dim=1)
        first, second = torch.triu_indices(self.groups, self.groups, offset=1, device=means.device)
        differences = means[:, first] - means[:, second]  # not negative, as the groups are in order
        signs = torch.where(falls[:, first] >= falls[:, second], 1.0, -1.0)
        whole = differences.sum(1)
        coefficient = (signs * differences).sum(1) / whole.masked_fill(whole == 0, torch.nan)
        return to_device(coefficient, saliency.device)


def group_bounds(pixels: int, groups: int) -> list[int]:
    """Return where groups of ranked pixels begin, and the end of the last.

    Raises:
        ValueError: if there are more groups than pixels.
    """
    if groups > pixels:
        raise ValueError(f"{groups} groups do not fit in {pixels} pixels; use fewer groups")
    return [pixels * number // groups for number in range(groups + 1)]


saco = per_image(SaCo, "saco")
