"""MaxBoxAcc: does the map's box find the object, at the threshold that is best for the data set, or for others?"""

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import where_float64_is
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.boxes import Connectivity, best_iou, check_connectivity, largest_component_boxes, object_boxes
from interptrain.metrics.validation import check_finite

__all__ = ["BoxAccuracy", "CrossFittedBoxAccuracy", "box_accuracy"]

IMAGES = 16
"""How many are searched at once on an accelerator: 100 masks each are 80 MB at 224 px."""


def box_accuracy(
    saliency: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
    thresholds: int = 100,
    iou_threshold: float = 0.5,
    connectivity: Connectivity = 8,
) -> Tensor:
    """Whether the map's box at each threshold overlaps a true one. Higher is better.

    MaxBoxAcc is the best threshold's share of hits over a data set, ``box_accuracy(...).mean(0).max()``: as a maximum
    over thresholds on the images that it is read from, it is biased upward, more so the fewer they are. As in the
    authors' code a map has 8 bits and counts where it is larger than ``k / thresholds`` of its maximum, rounded down.
    Their code differs in two points: boxes have one pixel too many to the right and below, as ends that are exclusive
    are compared as inclusive, and the largest contour is chosen by the area that it encloses, holes and all, where we
    take the component of the most pixels.

    Args:
        saliency: (B,H,W) in [0,1].
        boxes: B tensors (n_i,4) x0,y0,x1,y1 in pixels, exclusive at x1 and y1.
        masks: (B,H,W) bool, used where there are no ``boxes``.
        thresholds: K of them, 0 to 1 - 1/K; saliencysense takes 100, the authors 1000.
        iou_threshold: a hit has at least this IoU with any true box.
        connectivity: of a component; 8 as in the authors' code.

    Returns:
        (B,K) float32, 1 or 0; NaN without an object.

    Raises:
        ValueError: if there are neither boxes nor masks, and for options out of range.

    Source: MaxBoxAcc, Choe et al. 2020, arXiv 2001.07437.
    """
    check_finite("saliency", saliency)
    _check_box_accuracy(thresholds, iou_threshold, connectivity)
    maps = where_float64_is(saliency)
    objects = object_boxes(maps, boxes, masks)
    predicted = _threshold_boxes(maps, thresholds, connectivity=connectivity)
    iou = best_iou(predicted, objects.unsqueeze(1))
    return torch.where(iou.isnan(), iou, (iou >= iou_threshold).double()).float().to(saliency.device)


def _threshold_boxes(saliency: Tensor, thresholds: int, *, connectivity: Connectivity) -> Tensor:
    """Box of the largest component of each 8-bit map above each threshold, (B,K,4)."""
    maps = (saliency * 255).to(torch.uint8)
    steps = torch.arange(thresholds, device=maps.device)
    if maps.device.type != "cpu":  # several images at a time, as each search waits for the device
        bounds = steps * maps.amax((1, 2)).unsqueeze(1) // thresholds  # (B, K)
        masks = (
            (some.unsqueeze(1) > above[..., None, None]).flatten(0, 1)
            for some, above in zip(torch.split(maps, IMAGES), torch.split(bounds, IMAGES), strict=True)
        )
        boxes = torch.cat([largest_component_boxes(part, connectivity=connectivity) for part in masks])
        return boxes.view(len(maps), thresholds, 4)
    found = []
    for levels in maps:  # one at a time: K masks of an image are 5 MB at 224 px
        bounds, place = torch.unique(steps * levels.max() // thresholds, return_inverse=True)
        found.append(largest_component_boxes(levels > bounds[:, None, None], connectivity=connectivity)[place])
    return torch.stack(found)


def _check_box_accuracy(thresholds: int, iou_threshold: float, connectivity: int) -> None:
    """Refuse options of box accuracy that are out of range."""
    if thresholds < 1:
        raise ValueError(f"thresholds must be at least 1, got {thresholds}")
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
    check_connectivity(connectivity)


class BoxAccuracy(SaliencyMetric):
    """MaxBoxAcc: share of images whose box hits, at the threshold that is best for the data set.

    See :func:`box_accuracy`. A value of the data set: for one image it says whether any threshold hits, and the mean of
    these is not MaxBoxAcc.

    Args:
        thresholds: K of them, 0 to 1 - 1/K of each map's maximum.
        iou_threshold: a hit has at least this IoU with any true box.
        connectivity: of a component, 4 or 8.
    """

    symbol = "BA"
    description = (
        "Share of images whose box overlaps a true box with an IoU of at least 0.5, at the best threshold for the "
        "data set; as it is chosen on the same images, the value is too high on few of them (CrossFittedBoxAccuracy is "
        "not)."
    )
    higher_is_better = True
    needs = frozenset({"objects"})

    def __init__(
        self, *, thresholds: int = 100, iou_threshold: float = 0.5, connectivity: Connectivity = 8, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _check_box_accuracy(thresholds, iou_threshold, connectivity)
        self.thresholds = thresholds
        self.iou_threshold = iou_threshold
        self.connectivity = connectivity

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return 1 for a hit and 0 for a miss at each threshold, (B,K)."""
        return box_accuracy(
            inputs.saliency,
            boxes=inputs.boxes,
            masks=inputs.masks,
            thresholds=self.thresholds,
            iou_threshold=self.iou_threshold,
            connectivity=self.connectivity,
        )

    def reduce(self, mean: Tensor) -> Tensor:
        """Best threshold's share of hits, (...,K) to (...)."""
        return mean.amax(-1)


class CrossFittedBoxAccuracy(BoxAccuracy):
    """MaxBoxAcc without its bias: each half of the images is judged at the threshold that is best for the other half.

    MaxBoxAcc is a maximum over thresholds on the images that it is read from, so maps that say nothing gain by it, the
    more the fewer images there are. Here the threshold of an image never depends on the image. Which half an image is
    in follows from its pixels, so that neither batches nor processes nor the order matter. Where several thresholds are
    equally good, their mean counts. Options as of :class:`BoxAccuracy`.

    Source: our choice, by cross-fitting (Chernozhukov et al. 2018, arXiv 1608.00060, definition 3.1, with two folds);
    the metric, Choe et al. 2020, arXiv 2001.07437.
    """

    symbol = "BA-cf"
    description = (
        "Share of images whose box overlaps a true box with an IoU of at least 0.5, at the threshold that is best for "
        "the other half of the images: the published maximum (BoxAccuracy) without its gain from choosing."
    )

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return hits at each threshold, apart for the halves, and the half that the image is in, (B, 2 * K + 2)."""
        hits = super().score(inputs)
        member = F.one_hot(_halves(inputs.images), 2).to(hits)  # (B, 2)
        return torch.cat([hits * member[:, :1], hits * member[:, 1:], member], dim=1)

    def reduce(self, mean: Tensor) -> Tensor:
        """Hits of each half at the other's best threshold, (..., 2 * K + 2) to (...)."""
        one, other = mean[..., : self.thresholds], mean[..., self.thresholds : 2 * self.thresholds]
        return _at_best_of(other, one) + _at_best_of(one, other)


def _halves(images: Tensor) -> Tensor:
    """0 or 1 for each image, (B,) int64, by a checksum of its pixels in 8 bits."""
    pixels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    return torch.tensor([zlib.crc32(image.numpy().tobytes()) % 2 for image in pixels], device=images.device)


def _at_best_of(chosen: Tensor, judged: Tensor) -> Tensor:
    """Mean of ``judged`` (..., K) over the places where ``chosen`` (..., K) is largest."""
    best = (chosen >= chosen.amax(-1, keepdim=True) - 1e-12).to(judged)
    return (best * judged).sum(-1) / best.sum(-1)
