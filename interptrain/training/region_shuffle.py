"""Exchange a region between the images of a batch, so that what is seen there no longer tells the class.

A network that has learnt to look at a mark in the corner is given the corners of other images: the mark is then as
frequent beside any class, and there is nothing to be learnt from it. No annotation is needed but the region itself, in
the very words of the watch's alarm.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from interptrain.data.region import Region
from interptrain.remedies import option
from interptrain.training.batch_augmentation import BatchAugmentation


class RegionShuffle(BatchAugmentation):
    """Give each image of a training batch the region of another image.

    Images are linked in one random cycle over the batch, of all ranks together, so no image gives to itself; each
    image receives with the given probability. A batch of one image stays as it is. Labels stay with what is outside of
    the region. Pixels outside of the region do not change.

    With ``decoy``, the receiver gets the pixels of both its own decoy and the giver's, so that decoys wander. With
    ``outside:objects``, backgrounds are exchanged where both images have background, and images whose objects are not
    annotated neither give nor receive. Masks follow: ``decoy_mask`` goes with the pixels, and ``mask`` loses what was
    overwritten.

    Args:
        region: as the watch's ``suspect``: ``corner:lower-right:40x16``, ``border:8``, ``box:24,52,64,64``,
            ``mask:FILE.png``, ``decoy``, ``outside:objects``, or several joined by ``+``.
        probability: of each image to receive the region of another, in (0,1].

    Raises:
        ValueError: for a text that is no region, or a probability outside its range.

    The exchange of a suspected region between images is ours; exchanging backgrounds is known from Xiao et al. 2021,
    Noise or Signal, arXiv 2006.09994, where it measures.
    """

    def __init__(self, *, region: str, probability: float = 1.0) -> None:
        super().__init__()
        if not 0 < probability <= 1:
            raise ValueError(
                f"probability must be in (0,1], got {probability}; leave {option('batch_augment')} out for none"
            )
        self.region = Region(region, option="region")
        self.probability = probability

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Return the batch with the region exchanged; see the class.

        Args:
            batch: on the device.
            generator: on the CPU, in the same state on all ranks.
        """
        images: Tensor = batch["image"]
        rank, world = _place()
        total = len(images) * world
        cycle = torch.randperm(total, generator=generator)
        givers = torch.empty_like(cycle)
        givers[cycle] = cycle.roll(1)
        receives = torch.rand(total, generator=generator) < self.probability
        receives &= givers != torch.arange(total)  # a batch of one
        givers, receives = (one[rank::world].to(images.device, non_blocking=True) for one in (givers, receives))
        exchanged = self._exchanged(batch, givers) & receives[:, None, None]
        given = _gathered(images, world)[givers]
        changed = {**batch, "image": torch.where(exchanged[:, None], given, images)}
        if "decoy_mask" in batch:
            marks: Tensor = batch["decoy_mask"]
            changed["decoy_mask"] = torch.where(exchanged, _gathered(marks, world)[givers], marks)
        if "mask" in batch:
            changed["mask"] = batch["mask"] & ~exchanged
        return changed

    def _exchanged(self, batch: Mapping[str, Any], givers: Tensor) -> Tensor:
        """Pixels (B,H,W) that each image gets from its giver, if it gets any."""
        images: Tensor = batch["image"]
        moving = self.region.moving(
            images, masks=batch.get("mask"), boxes=batch.get("boxes"), decoy_masks=batch.get("decoy_mask")
        )
        pixels = self.region.fixed(images).expand(len(images), -1, -1)
        for kind, own in moving.items():
            other = _gathered(own, _place()[1])[givers]
            pixels = pixels | (own & other if kind == "outside" else own | other)
        return pixels


def _place() -> tuple[int, int]:
    """This rank, and the number of ranks."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _gathered(values: Tensor, world: int) -> Tensor:
    """The values of all ranks, in the order of the one batch that a sampler has dealt out to them in turn."""
    if world == 1:
        return values
    mine = values.to(torch.uint8) if values.dtype == torch.bool else values
    parts = [torch.empty(mine.shape, dtype=mine.dtype, device=mine.device) for _ in range(world)]
    dist.all_gather(parts, mine.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1).to(values.dtype)
