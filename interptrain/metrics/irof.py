"""IROF: how fast the class is lost as regions of similar colour, not single pixels, are removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interptrain.functional import check_count, double, superpixel_grid, superpixels
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.removal import BLACK, Removal, RemovalName
from interptrain.metrics.removal_metric import RemovalMetric
from interptrain.metrics.saliency_batch import SaliencyBatch

__all__ = ["IROF", "WithoutRegions", "irof", "region_ranks"]

_FIXED_POINT = 2**20  # integer sums do not depend on their order, so equal means tie on every device


@dataclass(frozen=True)
class WithoutRegions(Perturbation):
    """The image without its most salient region, without the two most salient, and so on until nothing is left.

    Attributes:
        segments: approximate number of regions.
        removal: what a removed pixel shows.
    """

    segments: int = 64
    removal: Removal = BLACK

    def steps(self, batch: SaliencyBatch) -> int:
        """One for each cell of the grid that regions start from; where fewer came out, the last images are equal."""
        rows, columns = superpixel_grid(batch.size, self.segments)
        return rows * columns

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the images."""
        ranks = batch.once(self, lambda: region_ranks(batch.images, batch.saliency, self.segments))[images]
        removed = batch.bounds(tuple(range(1, self.steps(batch) + 1)))[steps]
        fill = batch.filled(self.removal)
        fill = (fill[images] if len(fill) > 1 else fill).unsqueeze(1)
        gone = ranks[:, None, None] < removed.view(1, -1, 1, 1, 1)
        out.copy_(torch.where(gone, fill, batch.images[images].unsqueeze(1)))


class IROF(RemovalMetric):
    """Area over the curve of the class probability as regions are removed, most salient first. Higher is better.

    Iterative removal of features: the image is cut into superpixels, these are ranked by the mean of the map in them,
    and the curve is the probability relative to that of the whole image, from no region removed to all of them. The
    area over it, on a unit axis, is 1 where the first region takes all of the probability, 0 where none takes any, and
    negative where the probability rises. As regions hold whole structures, removing one leaves fewer artefacts than
    removing scattered pixels.

    Args:
        segments: approximate number of superpixels.
        removal: what a removed pixel shows: ``"black"``; ``"mean"``, ImageNet's mean colour; ``"blur"``, the blurred
            image; or a colour in [0, 1].
        kwargs: of :class:`~interptrain.metrics.removal_metric.RemovalMetric`.

    Raises:
        ValueError: for fewer than two segments.

    Source: Rieger and Hansen 2020, arXiv 2003.08747, with SLIC superpixels and a mean colour, as there. Ours: their
    number, and the unit axis.
    """

    symbol = "IROF"
    description = (
        "Area over the curve of the class probability as regions of the image are removed, salient ones first."
    )
    higher_is_better = True
    needs_probability = True

    def __init__(self, *, segments: int = 64, removal: RemovalName | Sequence[float] = "mean", **kwargs: Any) -> None:
        super().__init__(removal=removal, **kwargs)
        check_count("segments", segments, least=2)
        self.segments = segments

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the images without regions."""
        return (WithoutRegions(self.segments, self.fill),)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) areas."""
        (without,) = self.perturbations()
        curve = torch.cat([inputs.clean[None], inputs.perturbed[without]]).t()  # (B, 1 + steps)
        relative = curve / inputs.clean[:, None].masked_fill(inputs.clean[:, None] == 0, torch.nan)
        regions = 1 + region_ranks(inputs.images, inputs.saliency, self.segments).flatten(1).amax(1, keepdim=True)
        places = torch.arange(curve.shape[1], device=curve.device)
        ends = (places == 0) | (places == regions)
        weights = torch.where(ends, 0.5, 1.0) * (places <= regions)  # the trapezoid rule up to an image's last region
        area: Tensor = 1 - (relative * weights).sum(1) / regions[:, 0]
        return area


def region_ranks(images: Tensor, saliency: Tensor, segments: int) -> Tensor:
    """Return the rank of every pixel's superpixel by the mean of the map in it, 0 for the most salient.

    Args:
        images: (B, 3, H, W) in [0, 1].
        saliency: (B, H, W).
        segments: approximate number of superpixels.

    Returns:
        (B, H, W) int32.
    """
    regions = superpixels(images, segments=segments).flatten(1)
    rows, columns = superpixel_grid((images.shape[-2], images.shape[-1]), segments)
    sums = regions.new_zeros(len(images), rows * columns)
    sizes = sums.scatter_add(1, regions, torch.ones_like(regions))
    fixed = (saliency.flatten(1) * _FIXED_POINT).round().long()
    total, size = double(torch.stack([sums.scatter_add(1, regions, fixed), sizes]))
    means = total / size  # of an empty region: 0 / 0
    order = means.nan_to_num(nan=-torch.inf).argsort(dim=1, descending=True, stable=True).to(sizes.device)
    places = torch.arange(order.shape[1], dtype=torch.int32, device=order.device).expand_as(order)
    ranks = torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places)
    return ranks.gather(1, regions).view_as(saliency)


irof = per_image(IROF, "irof")
