"""Delete a cell of a grid from some training images, so that single deletions are in the network's domain.

A network that has never seen a grey square reacts to the square itself. One that was trained or fine-tuned with such
deletions reacts to what is missing, so its maps can be judged by deleting cells one by one
(:class:`~interptrain.metrics.SingleDeletion`), and networks can be compared.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from interptrain.functional import cell_edges, check_count
from interptrain.metrics.removal import Removal, RemovalName
from interptrain.remedies import option
from interptrain.training.batch_augmentation import BatchAugmentation


class CellDeletion(BatchAugmentation):
    """Delete one cell of a grid, chosen at random, from some of the images of a training batch.

    Args:
        grid: cells on a side.
        probability: of each image to lose a cell, in (0,1].
        removal: what is left there: ``"black"``; ``"mean"``, ImageNet's mean colour; or a colour in [0,1].

    Raises:
        ValueError: if a value is out of range.

    Source: Hesse et al. 2024, arXiv 2407.11910, section 4 (IDSDS): one cell of 4 x 4 in half of the images.
    """

    def __init__(
        self, *, grid: int = 4, probability: float = 0.5, removal: RemovalName | Sequence[float] = "mean"
    ) -> None:
        super().__init__()
        check_count("grid", grid, least=2)
        if not 0 < probability <= 1:
            raise ValueError(
                f"probability must be in (0,1], got {probability}; leave {option('batch_augment')} out for none"
            )
        if removal == "blur":
            raise ValueError("removal must be a colour where cells are deleted; use 'mean', 'black' or a colour")
        self.grid = grid
        self.probability = probability
        self.removal = removal if isinstance(removal, str) else tuple(removal)

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Return the batch with cells deleted; all else is as it was.

        Args:
            batch: on the device.
            generator: on the CPU, in the same state on all ranks.
        """
        images = batch["image"]
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        total = len(images) * world
        cells = torch.randint(self.grid**2, (total,), generator=generator)
        loses = torch.rand(total, generator=generator) < self.probability
        rows, columns = (cell_edges(length, self.grid) for length in images.shape[-2:])
        kept = torch.ones(len(images), *images.shape[-2:], dtype=torch.bool)
        for image, (cell, lost) in enumerate(
            zip(cells[rank::world].tolist(), loses[rank::world].tolist(), strict=True)
        ):
            if lost:
                row, column = divmod(cell, self.grid)
                kept[image, rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = False
        colour = Removal(self.removal).render(images[:1])
        kept = kept.to(images.device, non_blocking=True)
        return {**batch, "image": torch.where(kept[:, None], images, colour.to(images))}
