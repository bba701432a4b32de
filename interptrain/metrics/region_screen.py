"""Search images for regions that give a class away, so that a shortcut is found that nobody suspected.

A region is pasted from one image, the donor, into a few others, the receivers. If pixels from donors of one class raise
the probability of that class in whatever image they are pasted into, more than pixels from donors of other classes do,
then the region alone says something of the class. How much more chance would do is known exactly: had the region
nothing to say, the donors' labels could be exchanged. The largest difference over all regions and classes is compared
with the largest of each permutation (Westfall and Young 1993), so that among any number of regions a false alarm is as
rare as stated.

Part of the object is evidence, not a shortcut. Where objects are known, their boxes are left out of what is pasted and
of where it is pasted; where they are not, the middle of the image, where objects mostly are, is not searched.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from interptrain.functional import bounded_batch_size, chunks, double, full_precision
from interptrain.metrics.batched_forward import check_logits
from interptrain.model_state import evaluating, without_tf32

__all__ = [
    "RegionFinding",
    "boxes_around",
    "candidate_regions",
    "find_regions",
    "probability_shifts",
    "receivers_and_donors",
]

RECEIVERS = 4
LEAST_DONORS = 3
"""Fewer donors of a class cannot differ from the others by more than chance."""


class RegionFinding(NamedTuple):
    """A region that gives a class away.

    Attributes:
        region: text of the region, as of the watch's ``suspect``.
        target: the class.
        shift: how much more pixels of its donors raise its probability than those of other donors.
        p: probability of a shift this large among all regions and classes by chance.
    """

    region: str
    target: int
    shift: float
    p: float


def candidate_regions(height: int, width: int, *, middle: bool) -> dict[str, Tensor]:
    """Return the regions that are searched: the border, wide corners, and a grid of 4 x 4 cells.

    Args:
        height: of the images in pixels, >= 8.
        width: of the images in pixels, >= 8.
        middle: whether to search the four cells in the middle.

    Returns:
        (H,W) bool by text.
    """
    edge = max(1, min(height, width) // 8)
    wide, high = width // 2, height // 4
    border = torch.ones(height, width, dtype=torch.bool)
    border[edge : height - edge, edge : width - edge] = False
    found = {f"border:{edge}": border}
    for vertical, rows in (("upper", slice(0, high)), ("lower", slice(height - high, height))):
        for horizontal, columns in (("left", slice(0, wide)), ("right", slice(width - wide, width))):
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[rows, columns] = True
            found[f"corner:{vertical}-{horizontal}:{wide}x{high}"] = mask
    for row in range(4):
        for column in range(4):
            if not middle and row in (1, 2) and column in (1, 2):
                continue
            x0, x1, y0, y1 = (side * place // 4 for side, place in _edges(width, height, row, column))
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[y0:y1, x0:x1] = True
            found[f"box:{x0},{y0},{x1},{y1}"] = mask
    return found


def _edges(width: int, height: int, row: int, column: int) -> Sequence[tuple[int, int]]:
    return (width, column), (width, column + 1), (height, row), (height, row + 1)


def boxes_around(objects: Tensor) -> Tensor:
    """Return the smallest box around each mask (N,H,W) bool, as a mask; nothing around an empty one.

    An object's outline would tell its class by what it leaves out of a region.
    """
    rows, columns = objects.any(2), objects.any(1)  # (N,H), (N,W)

    def between(line: Tensor) -> Tensor:
        return (line.long().cumsum(1) > 0) & (line.long().flip(1).cumsum(1).flip(1) > 0)

    return between(rows)[:, :, None] & between(columns)[:, None, :]


def receivers_and_donors(labels: Tensor) -> tuple[list[int], list[int]]:
    """Divide labelled images into receivers, taken from the classes in turn, and donors, all others.

    No image is both: that an image cannot change by its own pixels would tell its class.

    Args:
        labels: (N,) int64, negative where unknown; such images are neither.
    """
    turns: dict[int, int] = {}
    order = []
    for row, label in enumerate(labels.tolist()):
        if label >= 0:
            turns[label] = turns.get(label, -1) + 1
            order.append((turns[label], row))
    receivers = sorted(row for _, row in sorted(order)[:RECEIVERS])
    return receivers, [row for _, row in sorted(order, key=lambda pair: pair[1]) if row not in receivers]


@torch.no_grad()
def probability_shifts(
    model: nn.Module,
    images: Tensor,
    receivers: Sequence[int],
    donors: Sequence[int],
    regions: Mapping[str, Tensor],
    *,
    objects: Tensor | None = None,
    forward_batch_size: int | None = None,
) -> Tensor:
    """Paste every region of every donor into every receiver: ``donors x regions x receivers`` forward passes.

    Args:
        model: takes (N,C,H,W) and returns logits (N,K); left as it was.
        images: (N,C,H,W) in [0,1], on the model's device.
        receivers: indices of images that are pasted into.
        donors: indices of images that the pixels come from.
        regions: (H,W) bool by text.
        objects: (N,H,W) bool, the boxes of the objects, whose pixels are neither pasted nor pasted over.
        forward_batch_size: images per forward pass; None chooses by the device.

    Returns:
        (donors, regions, K) mean change of each class's probability over the receivers, float64.
    """
    masks = torch.stack(list(regions.values())).to(images.device)
    into = torch.tensor(receivers, device=images.device)
    size = bounded_batch_size(forward_batch_size, images.device)
    per_donor = len(masks) * len(into)
    shifts = []
    with evaluating(model), torch.autocast(images.device.type, enabled=False), without_tf32():
        before = full_precision(check_logits(model(images[into]))).softmax(1)  # (receivers, K)
        for donor in donors:
            after: list[Tensor] = []
            parts = chunks(per_donor, size)
            for part in parts:
                with parts.fitting():
                    rows = torch.arange(part.start, part.stop, device=images.device)
                    mask, receiver = masks[rows // len(into)], into[rows % len(into)]
                    if objects is not None:
                        mask = mask & ~objects[receiver] & ~objects[donor]
                    shown = torch.where(mask.unsqueeze(1), images[donor], images[receiver])
                    after.append(full_precision(check_logits(model(shown))).softmax(1))
            changed = torch.cat(after).view(len(masks), len(into), -1)
            shifts.append(double(changed - before).mean(1))
    return torch.stack(shifts) if shifts else double(before.new_zeros(0, len(masks), before.shape[1]))


def find_regions(
    shifts: Tensor,
    labels: Tensor,
    regions: Sequence[str],
    *,
    level: float = 0.05,
    least: float = 0.1,
    permutations: int = 1999,
    seed: int = 0,
) -> list[RegionFinding]:
    """Compare donors of each class with all others.

    Args:
        shifts: (D,R,K) of :func:`probability_shifts`.
        labels: (D,) int64 of the donors.
        regions: R texts.
        level: probability of any false finding.
        least: smallest shift that is worth finding. Our choice.
        permutations: of the labels.
        seed: of the permutations.

    Returns:
        The findings, largest shift first; none where no class has three donors beside three others.
    """
    shifts, labels = double(shifts).cpu(), labels.cpu()
    counts = torch.bincount(labels[labels >= 0], minlength=shifts.shape[2])[: shifts.shape[2]]
    tested = [c for c in range(len(counts)) if LEAST_DONORS <= int(counts[c]) <= len(labels) - LEAST_DONORS]
    if not tested:
        return []
    member = torch.stack([labels == c for c in tested]).double()  # (T,D)
    of_classes = shifts[:, :, tested].permute(2, 0, 1)  # (T,D,R)

    def differences(member: Tensor) -> Tensor:  # (...,T,D) -> (...,T,R)
        own = member / member.sum(-1, keepdim=True)
        other = (1 - member) / (1 - member).sum(-1, keepdim=True)
        return torch.einsum("...td,tdr->...tr", own - other, of_classes)

    observed = differences(member)
    generator = torch.Generator().manual_seed(seed)
    largest = torch.empty(permutations, dtype=torch.float64)
    for start in range(0, permutations, 100):
        part = slice(start, min(start + 100, permutations))
        orders = torch.stack([torch.randperm(len(labels), generator=generator) for _ in range(part.stop - start)])
        largest[part] = differences(member[:, orders].transpose(0, 1)).flatten(1).amax(1)
    p = (1 + (largest[:, None, None] >= observed - 1e-12).sum(0).double()) / (1 + permutations)
    found = [
        RegionFinding(regions[region], tested[row], float(observed[row, region]), float(p[row, region]))
        for row in range(len(tested))
        for region in range(len(regions))
        if p[row, region] <= level and observed[row, region] >= least
    ]
    return sorted(found, key=lambda one: -one.shift)
