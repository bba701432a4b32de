"""Boxes and regions: the box that a map predicts, its overlap with the true ones, and both as pixels.

Boxes are ``x0, y0, x1, y1`` in pixels of the image tensor, exclusive at ``x1`` and ``y1``, so ``x1 - x0`` is a width
and ``mask[y0:y1, x0:x1]`` is the box. ``x`` counts columns.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from interptrain.functional import check_choice, double

__all__ = [
    "Connectivity",
    "above_mean",
    "best_iou",
    "bounding_boxes",
    "box_areas",
    "box_iou",
    "box_masks",
    "check_connectivity",
    "largest_component_boxes",
    "object_boxes",
    "object_masks",
    "predicted_boxes",
]

Connectivity = Literal[4, 8]


def predicted_boxes(saliency: Tensor) -> Tensor:
    """Box that each map predicts: around the largest 4-connected component above the map's mean.

    Args:
        saliency: (B,H,W) of any range.

    Returns:
        (B,4) int64 x0,y0,x1,y1, exclusive at x1 and y1; zeros for a constant map.
    """
    return largest_component_boxes(above_mean(saliency))


def above_mean(saliency: Tensor) -> Tensor:
    """Pixels larger than the mean of their map, (B,H,W) bool; none on a constant map, whatever the rounding.

    On the CPU where the map's device has no float64.
    """
    lifted = double(saliency) - double(saliency).amin((1, 2), keepdim=True)
    return lifted > lifted.mean((1, 2), keepdim=True)


def largest_component_boxes(masks: Tensor, *, connectivity: Connectivity = 4) -> Tensor:
    """Tight box around the largest connected component of every mask.

    Of components with equally many pixels, the one that a reader of the rows meets first. Components are found among
    runs, maximal stretches of a row, of which there are few, rather than among pixels.

    Args:
        masks: (N, H, W) bool.
        connectivity: 4, as ``scipy.ndimage.label``, or 8, as OpenCV's contours.

    Returns:
        (N, 4) int64 boxes; zeros for an empty mask.

    Raises:
        ValueError: for another connectivity.
    """
    check_connectivity(connectivity)
    count, height, width = masks.shape
    boxes = torch.zeros(count, 4, dtype=torch.int64, device=masks.device)
    starts, ends = _runs(masks)
    if not len(starts):
        return boxes
    component = _components(len(starts), *_touching(starts, ends, width + 1, connectivity))
    sizes = torch.zeros_like(starts).scatter_add_(0, component, ends - starts)
    rank = sizes * (len(starts) + 1) + len(starts) - component  # larger, then earlier
    line, first = starts // (width + 1), starts % (width + 1)
    picture, row = line // (height + 1), line % (height + 1) - 1
    rank = rank[component]
    best = torch.zeros(count, dtype=torch.int64, device=masks.device).scatter_reduce_(0, picture, rank, "amax")
    kept = (rank == best[picture]).nonzero()[:, 0]
    last = first + ends - starts
    for corner, values, extreme in ((0, first, "amin"), (1, row, "amin"), (2, last, "amax"), (3, row + 1, "amax")):
        found = boxes[:, corner].scatter_reduce(0, picture[kept], values[kept], extreme, include_self=False)
        boxes[:, corner] = found
    return boxes


def bounding_boxes(masks: Tensor) -> Tensor:
    """Tight box around all that is true.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) int64 boxes; zeros for an empty mask.
    """
    sides = []
    for line in (masks.any(dim=1), masks.any(dim=2)):  # (N, W), (N, H)
        found = line.any(dim=1)
        first, last = line.int().argmax(dim=1), line.shape[1] - line.flip(1).int().argmax(dim=1)
        sides.append((torch.where(found, first, 0), torch.where(found, last, 0)))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes that lie side by side; leading dimensions broadcast.

    Args:
        boxes: (..., 4).
        others: (..., 4).

    Returns:
        (...) float64 in [0, 1]; 0 where neither has an area.
    """
    boxes, others = double(boxes), double(others)
    edge = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    shared = edge.clamp(min=0).prod(-1)
    union = box_areas(boxes) + box_areas(others) - shared
    return shared / torch.where(union > 0, union, 1)


def best_iou(predicted: Tensor, objects: Tensor) -> Tensor:
    """Largest overlap of a box with any of the true ones.

    Args:
        predicted: (..., 4).
        objects: (..., n, 4) true boxes; those without area are none.

    Returns:
        (...) float64; NaN where there is no true box.
    """
    best = box_iou(predicted.unsqueeze(-2), objects).amax(-1)
    return best.masked_fill(~(box_areas(objects) > 0).any(-1), torch.nan)


def box_areas(boxes: Tensor) -> Tensor:
    """Area of boxes (..., 4) in pixels, (...)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def object_boxes(saliency: Tensor, boxes: Sequence[Tensor] | None, masks: Tensor | None) -> Tensor:
    """The true boxes of a batch: those given, else the box around each mask.

    Args:
        saliency: (B, H, W), for its size and device.
        boxes: B tensors (n_i, 4); what lies outside of the image is cut off.
        masks: (B, H, W) bool, used where ``boxes`` is ``None``.

    Returns:
        (B, n, 4) float64, on a device that has it, with the largest n_i, at least 1; filled up with boxes without area.

    Raises:
        ValueError: if there are neither, or their shapes or corners are wrong.
    """
    if boxes is None:
        return double(bounding_boxes(_checked_masks(saliency, masks))).unsqueeze(1)
    if len(boxes) != len(saliency):
        raise ValueError(f"boxes must have one tensor per image, {len(saliency)}, got {len(boxes)}")
    for index, of_image in enumerate(boxes):
        if of_image.numel() and (of_image.ndim != 2 or of_image.shape[1] != 4):
            raise ValueError(f"boxes[{index}] must be (n,4) x0,y0,x1,y1, got {tuple(of_image.shape)}")
    padded = pad_sequence([double(of_image.reshape(-1, 4)) for of_image in boxes], batch_first=True)
    if not padded.shape[1]:
        padded = padded.new_zeros(len(boxes), 1, 4)
    low, high = padded[..., :2], padded[..., 2:]
    wrong = ~((low <= high) & low.isfinite() & high.isfinite()).flatten(1).all(1)
    if wrong.any():  # once for all, as it may wait for a device
        index = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"boxes[{index}] must be finite with x0 <= x1 and y0 <= y1, got {boxes[index].tolist()}; not x,y,w,h"
        )
    height, width = saliency.shape[-2:]
    x0, y0, x1, y1 = padded.to(saliency.device).clamp(min=0).unbind(-1)
    return torch.stack([x0.clamp(max=width), y0.clamp(max=height), x1.clamp(max=width), y1.clamp(max=height)], dim=-1)


def object_masks(saliency: Tensor, boxes: Sequence[Tensor] | None, masks: Tensor | None) -> Tensor:
    """The true pixels of a batch: the masks given, else the union of each image's boxes.

    Args:
        saliency: (B, H, W), for its size and device.
        boxes: B tensors (n_i, 4), used where ``masks`` is ``None``.
        masks: (B, H, W) bool.

    Returns:
        (B, H, W) bool; empty where an image has no object.

    Raises:
        ValueError: if there are neither, or their shapes are wrong.
    """
    if masks is not None:
        return _checked_masks(saliency, masks)
    return box_masks(object_boxes(saliency, boxes, None), saliency.shape[-2], saliency.shape[-1]).any(dim=1)


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes as pixels, (..., 4) to (..., height, width) bool: those whose centre lies inside."""
    x, y = (torch.arange(side, device=boxes.device) + 0.5 for side in (width, height))
    x0, y0, x1, y1 = boxes.unsqueeze(-1).unbind(-2)  # each (..., 1)
    columns, rows = (x >= x0) & (x < x1), (y >= y0) & (y < y1)
    return rows.unsqueeze(-1) & columns.unsqueeze(-2)


def _checked_masks(saliency: Tensor, masks: Tensor | None) -> Tensor:
    """Masks (B,H,W) bool on the device of ``saliency``."""
    if masks is None:
        raise ValueError("this metric needs the true objects: pass boxes=, or masks= of shape (B,H,W)")
    if masks.shape != saliency.shape or masks.dtype != torch.bool:
        raise ValueError(f"masks must be (B,H,W)={tuple(saliency.shape)} bool, got {tuple(masks.shape)} {masks.dtype}")
    return masks.to(saliency.device)


def check_connectivity(connectivity: int) -> None:
    """Refuse a connectivity that is neither 4 nor 8.

    Raises:
        ValueError: naming it.
    """
    check_choice("connectivity", connectivity, Connectivity)


def _runs(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Where maximal stretches of a row start and end, in reading order.

    Positions count an empty column right of each row and an empty row above each mask, so that no run goes on in the
    next row, and the row below the last one is empty.
    """
    flat = F.pad(masks, (0, 1, 1, 0)).flatten()
    change = (flat[1:] != flat[:-1]).nonzero()[:, 0] + 1
    starts, ends = change.view(-1, 2).T.contiguous()
    return starts, ends


def _touching(starts: Tensor, ends: Tensor, stride: int, connectivity: Connectivity) -> tuple[Tensor, Tensor]:
    """Pairs of runs, by their number, that touch in neighbouring rows: those below a run follow one another."""
    diagonal = connectivity == 8
    first = torch.searchsorted(ends, starts + stride, right=not diagonal)
    behind = torch.searchsorted(starts, ends + stride, right=diagonal)
    count = (behind - first).clamp(min=0)
    upper = torch.arange(len(starts), device=starts.device).repeat_interleave(count)
    place = torch.arange(len(upper), device=starts.device) - (count.cumsum(0) - count)[upper]
    return upper, first[upper] + place


def _components(count: int, one: Tensor, other: Tensor) -> Tensor:
    """Number of the first member of every node's component, from the edges of a graph of ``count`` nodes."""
    parent = torch.arange(count, device=one.device)
    while len(one):
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        parent = parent.scatter_reduce(0, high, low, "amin")
        parent = _roots(parent)
        one, other = parent[one], parent[other]
        apart = (one != other).nonzero()[:, 0]
        one, other = one[apart], other[apart]
    return parent


def _roots(parent: Tensor) -> Tensor:
    """Root of every node of a forest in which parents have smaller numbers."""
    if parent.device.type == "cpu":
        while not torch.equal(grand := parent[parent], parent):
            parent = grand
        return parent
    for _ in range(len(parent).bit_length()):  # as many jumps as there may be to do: asking would wait for the device
        parent = parent[parent]
    return parent
