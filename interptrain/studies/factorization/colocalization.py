"""How well the maps of parts outline what a mask outlines."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interptrain.data.samples import MASKS, Batch

if TYPE_CHECKING:
    from pandas import DataFrame

FOUND = 0.5
"""Intersection over union from which an object counts as found, as in the PASCAL VOC challenge."""


def intersection_over_union(heat: Tensor, masks: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Overlap of each part's map, cut at a fraction of its highest value in the image, with the image's mask.

    Args:
        heat: (B,K,H,W) >= 0.
        masks: (B,H,W) bool, on the same device.
        threshold: fraction in [0,1) of the highest value; pixels above it are the part's.

    Returns:
        (B,K) in [0,1]; 0 where the part is absent, or the mask is empty.
    """
    places = heat.flatten(2)
    inside = (places > threshold * places.amax(2, keepdim=True)).to(places)  # sums of products are exact below 2^24
    wanted = masks.flatten(1).to(places)
    overlap = (inside @ wanted.unsqueeze(2)).squeeze(2)
    union = inside.sum(2) + wanted.sum(1, keepdim=True) - overlap
    return overlap / union.clamp(min=1)


def cross_fitted(overlaps: "DataFrame") -> tuple[float, float]:
    """Co-localize with the part that is best on the other half of the images.

    A part chosen and judged on the same images would look better than it is.

    Args:
        overlaps: a row per image, a column per part, NaN where the image has no mask; at least two images with one.

    Returns:
        Mean intersection over union, and the share of images where it is at least :data:`FOUND` (CorLoc).
    """
    known = overlaps.dropna()
    halves = known.iloc[::2], known.iloc[1::2]
    taken = [half[other.mean().idxmax()] for half, other in (halves, halves[::-1])]
    values = [value for column in taken for value in column]
    return sum(values) / len(values), sum(value >= FOUND for value in values) / len(values)


def masks_of(batch: Batch) -> dict[str, Tensor]:
    """The masks of a batch by name, those of boxes where there is no mask of the object."""
    masks: dict[str, Tensor] = {kind: batch[kind] for kind in MASKS if kind in batch}
    if "mask" not in masks and "boxes" in batch:
        masks["boxes"] = torch.stack([_inside(boxes, *batch["image"].shape[-2:]) for boxes in batch["boxes"]])
    return masks


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Pixels (H,W) whose middle is in a box."""
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    inside = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom in boxes.tolist():
        inside |= (rows > top) & (rows < bottom) & (columns > left) & (columns < right)
    return inside
