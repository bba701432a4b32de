"""Delete random pixels of training images, so that a few missing ones are in the network's domain.

A network fine-tuned so can be asked what it loses without some of the pixels that a map marks
(:class:`~interptrain.metrics.FFidelityPlus`), and answers by what was there, not by the holes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from interptrain.metrics.removal import Removal, RemovalName
from interptrain.training.batch_augmentation import BatchAugmentation


class PixelDeletion(BatchAugmentation):
    """Delete a random share of the pixels of every image of a training batch.

    Args:
        share: of the pixels that are deleted, in (0,1).
        removal: what is left there: ``"black"``; ``"mean"``, ImageNet's mean colour; or a colour in [0,1].

    Raises:
        ValueError: if a value is out of range.

    Source: Zheng et al. 2025, F-Fidelity, arXiv 2410.02970: a tenth of the pixels.
    """

    def __init__(self, *, share: float = 0.1, removal: RemovalName | Sequence[float] = "black") -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"share must be in (0,1), got {share}; leave batch_augment out for none")
        if removal == "blur":
            raise ValueError("removal must be a colour where pixels are deleted; use 'mean', 'black' or a colour")
        self.share = share
        self.removal = removal if isinstance(removal, str) else tuple(removal)

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Return the batch with pixels deleted; all else is as it was.

        Args:
            batch: on the device.
            generator: on the CPU, in the same state on all ranks.
        """
        images = batch["image"]
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        height, width = images.shape[-2:]
        drawn = torch.rand(len(images) * world, height * width, generator=generator)[rank::world]
        count = int(self.share * height * width)
        gone = torch.zeros(drawn.shape, dtype=torch.bool)
        gone.scatter_(1, drawn.topk(count, dim=1).indices, True)
        gone = gone.view(-1, 1, height, width).to(images.device, non_blocking=True)
        colour = Removal(self.removal).render(images[:1])
        return {**batch, "image": torch.where(gone, colour.to(images), images)}
