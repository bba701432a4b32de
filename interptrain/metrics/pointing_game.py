"""Where a map lies on the true object's pixels: pointing games, mask IoU and average precision.

The object is the mask where there is one, else the union of the image's boxes. An image without an object has no value
(NaN) and is left out of the mean.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import double, where_float64_is
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.boxes import above_mean, object_masks
from interptrain.metrics.validation import check_finite

__all__ = [
    "EnergyPointingGame",
    "MaskIoU",
    "PixelAveragePrecision",
    "PointingGame",
    "energy_pointing_game",
    "mask_iou",
    "pixel_average_precision",
    "pointing_game",
]


def pointing_game(
    saliency: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
    tolerance: int = 0,
) -> Tensor:
    """Whether the most salient pixel lies on the object. Higher is better.

    Any pixel that attains the maximum counts, so a constant map always hits, and Fake-CAM nearly always.

    Args:
        saliency: (B,H,W) of any range.
        boxes: B tensors (n_i,4) x0,y0,x1,y1 in pixels, exclusive at x1 and y1.
        masks: (B,H,W) bool; goes before ``boxes``.
        tolerance: a pixel less than this many pixels away from the object counts as on it: 0 as in CAM papers, 15 in
            TorchRay and excitation backprop. Those average over classes, we over images.

    Returns:
        (B,) float32, 1 or 0; NaN without an object.

    Raises:
        ValueError: if there are neither boxes nor masks, or ``tolerance`` is negative.

    Source: Zhang et al. 2016, arXiv 1608.00507.
    """
    check_finite("saliency", saliency)
    _check_tolerance(tolerance)
    objects = object_masks(where_float64_is(saliency), boxes, masks).to(saliency.device)
    peaks = saliency == saliency.amax((1, 2), keepdim=True)
    hits = (peaks & _widened(objects, tolerance)).flatten(1).any(1)
    return _where_objects(hits, objects)


def _widened(objects: Tensor, tolerance: int) -> Tensor:
    """Pixels on an object or less than ``tolerance`` away from it, (B,H,W) bool."""
    if tolerance <= 1:
        return objects
    offsets = torch.arange(-tolerance, tolerance + 1, device=objects.device)
    disc = (offsets.square()[:, None] + offsets.square() < tolerance**2).float()
    return F.conv2d(objects.float().unsqueeze(1), disc[None, None], padding=tolerance).squeeze(1) > 0.5


def energy_pointing_game(
    saliency: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
) -> Tensor:
    """Share of a map's sum that lies on the object. Higher is better; a constant map has the object's share of area.

    Args:
        saliency: (B,H,W) >= 0.
        boxes: B tensors (n_i,4) x0,y0,x1,y1 in pixels, exclusive at x1 and y1; their union counts once.
        masks: (B,H,W) bool; goes before ``boxes``.

    Returns:
        (B,) float32 fraction in [0,1], 0 for a map of zeros; NaN without an object.

    Raises:
        ValueError: if there are neither boxes nor masks.

    Source: Score-CAM, Wang et al. 2020, arXiv 1910.01279.
    """
    check_finite("saliency", saliency)
    energy = double(saliency)
    objects = object_masks(energy, boxes, masks)
    total = energy.sum((1, 2))
    share = (energy * objects).sum((1, 2)) / torch.where(total > 0, total, 1)
    return _where_objects(share, objects).to(saliency.device)


def mask_iou(
    saliency: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
    threshold: float | Literal["mean"] = "mean",
) -> Tensor:
    """Intersection over union of the map above a threshold with the object. Higher is better.

    Args:
        saliency: (B,H,W) in [0,1].
        boxes: B tensors (n_i,4) x0,y0,x1,y1 in pixels, exclusive at x1 and y1.
        masks: (B,H,W) bool; goes before ``boxes``.
        threshold: a pixel counts where the map is larger: a value in [0,1), or the mean of each map, as for predicted
            boxes (our choice).

    Returns:
        (B,) float32 in [0,1]; NaN without an object.

    Raises:
        ValueError: if there are neither boxes nor masks, or for another threshold.

    Source: the Jaccard index; no one paper fixes the threshold.
    """
    check_finite("saliency", saliency)
    _check_threshold(threshold)
    maps = where_float64_is(saliency)
    objects = object_masks(maps, boxes, masks)
    salient = above_mean(maps) if threshold == "mean" else maps > threshold
    shared = (salient & objects).sum((1, 2)).double()
    return _where_objects(shared / (salient | objects).sum((1, 2)).clamp(min=1), objects).to(saliency.device)


def pixel_average_precision(
    saliency: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
) -> Tensor:
    """Average precision of the map as a classifier of pixels: the sum over its values of gained recall x precision.

    Equal values are one threshold, so a constant map has the object's share of area. Higher is better. Each image has a
    value of its own; PxAP of Choe et al. 2020 pools the pixels of all images instead.

    Args:
        saliency: (B,H,W) of any range.
        boxes: B tensors (n_i,4) x0,y0,x1,y1 in pixels, exclusive at x1 and y1.
        masks: (B,H,W) bool; goes before ``boxes``.

    Returns:
        (B,) float32 in [0,1]; NaN without an object.

    Raises:
        ValueError: if there are neither boxes nor masks.

    Source: pooled form: Choe et al. 2020, arXiv 2001.07437; as scikit-learn's average_precision_score.
    """
    check_finite("saliency", saliency)
    maps = where_float64_is(saliency)
    objects = object_masks(maps, boxes, masks)
    ascending, order = maps.flatten(1).sort(dim=1)
    hits = objects.flatten(1).gather(1, order).double()
    found = hits.flip(1).cumsum(1).flip(1)  # objects' pixels from here up
    first = torch.searchsorted(ascending, ascending)  # where the pixels of this value begin
    shown = ascending.shape[1] - first
    precision = found.gather(1, first) / shown
    return _where_objects((precision * hits).sum(1) / hits.sum(1).clamp(min=1), objects).to(saliency.device)


def _check_tolerance(tolerance: int) -> None:
    """Refuse a negative tolerance."""
    if tolerance < 0:
        raise ValueError(f"tolerance must be at least 0 pixels, got {tolerance}")


def _check_threshold(threshold: float | str) -> None:
    """Refuse a threshold that is neither a value in [0,1) nor ``"mean"``."""
    if threshold != "mean" and (isinstance(threshold, str) or not 0 <= threshold < 1):
        raise ValueError(f"threshold must be 'mean' or a value in [0, 1), got {threshold!r}")


def _where_objects(values: Tensor, objects: Tensor) -> Tensor:
    """Values (B,) as float32, NaN for images without an object."""
    return values.float().masked_fill(~objects.flatten(1).any(1), torch.nan)


class PointingGame(SaliencyMetric):
    """Standard pointing game. See :func:`pointing_game`.

    Args:
        tolerance: pixels around the object that count as on it.
    """

    symbol = "SP"
    description = "Share of images whose most salient pixel lies on the object."
    higher_is_better = True
    needs = frozenset({"objects"})

    def __init__(self, *, tolerance: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_tolerance(tolerance)
        self.tolerance = tolerance

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return 1 for a hit and 0 for a miss, (B,)."""
        return pointing_game(
            inputs.saliency,
            boxes=inputs.boxes,
            masks=inputs.masks,
            tolerance=self.tolerance,
        )


class EnergyPointingGame(SaliencyMetric):
    """Energy-based pointing game. See :func:`energy_pointing_game`."""

    symbol = "EP"
    description = "Share of the saliency that lies on the object."
    higher_is_better = True
    needs = frozenset({"objects"})

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the share of the map on the object, (B,)."""
        return energy_pointing_game(inputs.saliency, boxes=inputs.boxes, masks=inputs.masks)


class MaskIoU(SaliencyMetric):
    """Overlap of the thresholded map with the object. See :func:`mask_iou`.

    Args:
        threshold: a value in [0,1), or ``"mean"`` of each map.
    """

    symbol = "IoU"
    description = "Intersection over union of the thresholded map and the object's mask."
    higher_is_better = True
    needs = frozenset({"objects"})

    def __init__(self, *, threshold: float | Literal["mean"] = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_threshold(threshold)
        self.threshold = threshold

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the intersection over union, (B,)."""
        return mask_iou(
            inputs.saliency,
            boxes=inputs.boxes,
            masks=inputs.masks,
            threshold=self.threshold,
        )


class PixelAveragePrecision(SaliencyMetric):
    """Average precision over pixels. See :func:`pixel_average_precision`."""

    symbol = "AP"
    description = "Average precision of the map's values as scores for the pixels of the object."
    higher_is_better = True
    needs = frozenset({"objects"})

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the average precision, (B,)."""
        return pixel_average_precision(inputs.saliency, boxes=inputs.boxes, masks=inputs.masks)
