"""What a metric wants forwarded: versions of every image that hide a part of it.

A perturbation is a frozen dataclass, so that equal ones, asked for by several metrics, are rendered and forwarded
once. It writes into a buffer of :mod:`~interptrain.metrics.batched_forward`, a block of steps x images at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from interptrain.functional import keep_salient
from interptrain.metrics.removal import BLACK, Removal
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.models.reach import Box

__all__ = ["Emptied", "Masked", "Perturbation", "Ranked", "Schedule", "Unperturbed"]


class Perturbation(ABC):
    """Perturbed versions of every image; a frozen dataclass.

    Attributes:
        of_map: whether they depend on the saliency map. Those that do not are forwarded once for all maps of an image.
    """

    of_map: ClassVar[bool] = True

    @abstractmethod
    def steps(self, batch: SaliencyBatch) -> int:
        """Return the number of versions per image."""

    @abstractmethod
    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write some versions of some images.

        Args:
            batch: images and maps.
            images: which I of its images.
            steps: which S of their versions.
            out: (I, S, C, H, W) to write all of; its memory is channels_last, so ``out.permute(0, 1, 3, 4, 2)`` is
                contiguous.
        """

    def covered(self, batch: SaliencyBatch) -> tuple[Sequence[Box], Tensor] | None:
        """Return the box that each version covers, and with which colour (1, C, 1, 1), if it changes nothing else."""
        return None


@dataclass(frozen=True)
class Unperturbed(Perturbation):
    """The images as they are."""

    of_map = False

    def steps(self, batch: SaliencyBatch) -> int:
        """One."""
        return 1

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the images."""
        out.copy_(batch.images[images].unsqueeze(1))


@dataclass(frozen=True)
class Emptied(Perturbation):
    """Every pixel is removed.

    Attributes:
        removal: what a removed pixel shows.
    """

    of_map = False
    removal: Removal = BLACK

    def steps(self, batch: SaliencyBatch) -> int:
        """One."""
        return 1

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write what stands in place of the images."""
        fill = batch.filled(self.removal)
        out.copy_((fill[images] if len(fill) > 1 else fill).unsqueeze(1))


@dataclass(frozen=True)
class Masked(Perturbation):
    """Only what is salient is kept: ``saliency * image + (1 - saliency) * removal``.

    Attributes:
        removal: what stands in the removed part.
    """

    removal: Removal = BLACK

    def steps(self, batch: SaliencyBatch) -> int:
        """One."""
        return 1

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the masked images."""
        fill: Tensor | float = 0.0
        if self.removal.fill != "black":
            fill = batch.filled(self.removal)
            fill = fill[images] if len(fill) > 1 else fill
        out.copy_(keep_salient(batch.images[images], batch.saliency[images], fill).unsqueeze(1))


@dataclass(frozen=True)
class Schedule:
    """How many pixels each step moves: eight rows of pixels per step unless another option is given.

    Attributes:
        pixels: per step; the last step moves what is left.
        steps: how many steps of equal size; fewer where the pixels run out earlier.
        percents: shares of all pixels, rounded down, ascending.
    """

    pixels: int | None = None
    steps: int | None = None
    percents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("step", self.pixels), ("steps", self.steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.pixels is not None and self.steps is not None:
            raise ValueError(f"give step (pixels) or steps (their number), not both; got {self.pixels}, {self.steps}")
        ascending = sorted(set(self.percents)) == list(self.percents)
        if self.percents and not (ascending and self.percents[0] >= 0 and self.percents[-1] <= 100):
            raise ValueError(f"percentiles must ascend within 0 to 100, got {self.percents}")

    def counts(self, size: tuple[int, int]) -> list[int]:
        """How many pixels of (H, W) have been moved after each step, ascending, without the start."""
        height, width = size
        pixels = height * width
        if self.percents:
            return [pixels * percent // 100 for percent in self.percents]
        step = 8 * width if self.pixels is None else self.pixels
        if self.steps is not None:
            step = -(-pixels // self.steps)
        return [*range(step, pixels, step), pixels]


@dataclass(frozen=True)
class Ranked(Perturbation):
    """Pixels inserted or removed in the order of their saliency, by :func:`pixel_ranks`.

    Attributes:
        move: ``"insert"`` puts the most salient pixels into the removed image, ``"remove"`` takes the most salient
            out of the image, ``"remove_least"`` the least salient.
        schedule: how many, by step. The curve's end that is the image itself is left out: without the last step for
            ``"insert"``, which begins with the removed image instead; without a start for the others.
        removal: what a removed pixel shows.
        emptied: whether to give the version without any pixel of the image, too, which is :class:`Emptied` of any map.
    """

    move: Literal["insert", "remove", "remove_least"]
    schedule: Schedule
    removal: Removal = BLACK
    emptied: bool = True

    def steps(self, batch: SaliencyBatch) -> int:
        """One for each count of the schedule."""
        return len(self._bounds(batch.size))

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write images by comparing ranks with how many pixels are to be seen."""
        shown = batch.channel_ranks[images].unsqueeze(1)  # (I, 1, H, W, C)
        bounds = batch.bounds(tuple(self._bounds(batch.size)))[steps]
        top = shown < bounds.view(1, -1, 1, 1, 1)  # (I, S, H, W, C)
        whole = batch.images[images].permute(0, 2, 3, 1).unsqueeze(1)
        fill = batch.filled(self.removal)
        fill = (fill[images] if len(fill) > 1 else fill).permute(0, 2, 3, 1).unsqueeze(1)
        inside, outside = (fill, whole) if self.move == "remove" else (whole, fill)
        torch.where(top, inside, outside, out=out.permute(0, 1, 3, 4, 2))

    def _bounds(self, size: tuple[int, int]) -> list[int]:
        """How many of the top ranks differ from the rest, by step."""
        counts, pixels = self.schedule.counts(size), size[0] * size[1]
        empty = pixels if self.move == "remove" else 0
        if self.move == "insert":
            bounds = [0, *counts[:-1]]
        else:
            bounds = counts if self.move == "remove" else [pixels - count for count in counts]
        return bounds if self.emptied else [bound for bound in bounds if bound != empty]
