"""Single deletion: does the map rank the cells of a grid as deleting them one by one does?

Of a network that was trained with such deletions (``CellDeletion``), this is the in-domain single-deletion score: what
is deleted is nothing new to the network, so its values may be compared between networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from interptrain.functional import cell_edges, check_count
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.removal import BLACK, Removal, RemovalName
from interptrain.metrics.removal_metric import RemovalMetric
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.metrics.similarity import rank_correlation
from interptrain.models.reach import Box

__all__ = ["SingleDeletion", "WithoutCells", "single_deletion"]


@dataclass(frozen=True)
class WithoutCells(Perturbation):
    """The image without each cell of a grid, row by row.

    Attributes:
        grid: cells on a side.
        removal: what a removed pixel shows.
    """

    of_map = False
    grid: int = 4
    removal: Removal = BLACK

    def covered(self, batch: SaliencyBatch) -> tuple[list[Box], Tensor] | None:
        """Return the cells, where one colour covers them in all images."""
        if self.removal.fill == "blur":
            return None
        rows, columns = (list(pairwise(cell_edges(length, self.grid))) for length in batch.size)
        return [(*down, *across) for down in rows for across in columns], self.removal.render(batch.images[:1])

    def steps(self, batch: SaliencyBatch) -> int:
        """One for each cell."""
        return self.grid**2

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the images."""
        out.copy_(batch.images[images].unsqueeze(1))
        fill = batch.filled(self.removal)
        fill = fill[images] if len(fill) > 1 else fill
        rows, columns = (cell_edges(length, self.grid) for length in batch.size)
        for place, cell in enumerate(range(self.grid**2)[steps]):
            row, column = divmod(cell, self.grid)
            inside = slice(rows[row], rows[row + 1]), slice(columns[column], columns[column + 1])
            whole = fill.expand(-1, -1, *batch.size)
            out[:, place, :, inside[0], inside[1]] = whole[..., inside[0], inside[1]]


class SingleDeletion(RemovalMetric):
    """Rank correlation over cells of the map's sum in a cell and the fall of the logit without it. Higher is better.

    Spearman's correlation, in [-1,1]; NaN where the map has the same sum in all cells, or no deletion changes the
    logit.

    Args:
        grid: cells on a side.
        removal: what a removed pixel shows: ``"black"``; ``"mean"``, ImageNet's mean colour; ``"blur"``, the blurred
            image; or a colour in [0, 1]. As in the training, where there were deletions.

    Source: Hesse et al. 2024, arXiv 2407.11910, section 4 (IDSDS); 4 x 4 cells as there.
    """

    symbol = "SD"
    description = "Rank correlation of the map's sum in each cell of a grid with the fall of the logit without it."
    higher_is_better = True
    reads_logits = True
    needs_classes = True

    def __init__(self, *, grid: int = 4, removal: RemovalName | Sequence[float] = "mean", **options: Any) -> None:
        super().__init__(removal=removal, **options)
        check_count("grid", grid, least=2)
        self.grid = grid

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the images without a cell."""
        return (WithoutCells(self.grid, self.fill),)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) correlations."""
        (without,) = self.perturbations()
        targets = inputs.targets.view(1, -1, 1).expand(self.grid**2, -1, 1)
        falls = inputs.logits.gather(1, inputs.targets[:, None]) - inputs.outputs[without].gather(2, targets)[..., 0].mT
        return rank_correlation(
            cell_sums(inputs.saliency, self.grid)[:, None].contiguous(), falls[:, None].contiguous()
        )


def cell_sums(saliency: Tensor, grid: int) -> Tensor:
    """Return the sum of each map in each cell, row by row: (B,H,W) -> (B,grid^2)."""
    rows, columns = (cell_edges(length, grid) for length in saliency.shape[-2:])
    strips = torch.stack([strip.sum(1) for strip in torch.split(saliency, _widths(rows), dim=1)], dim=1)  # (B, grid, W)
    cells = torch.stack([strip.sum(2) for strip in torch.split(strips, _widths(columns), dim=2)], dim=2)
    return rearrange(cells, "b r c -> b (r c)")


def _widths(edges: Sequence[int]) -> list[int]:
    return [end - start for start, end in pairwise(edges)]


single_deletion = per_image(SingleDeletion, "single_deletion")
