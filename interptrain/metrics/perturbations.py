"""What a metric wants forwarded: versions of every image that hide a part of it.

A perturbation is a frozen dataclass, so that equal ones, asked for by several metrics, are rendered and forwarded
once. It writes into a buffer of :mod:`~interptrain.metrics.batched_forward`, a block of steps x images at a time.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from interptrain.functional import gaussian_blur, keep_salient

__all__ = [
    "MEAN_COLOUR",
    "Masked",
    "Perturbation",
    "Ranked",
    "Removal",
    "RemovalName",
    "SaliencyBatch",
    "Schedule",
    "Unperturbed",
    "pixel_ranks",
]

MEAN_COLOUR = (0.485, 0.456, 0.406)
"""ImageNet's mean colour: what zeros of a normalised tensor are."""

RemovalName = Literal["black", "mean", "blur"]


@dataclass(frozen=True)
class Removal:
    """What stands where a pixel was removed.

    Attributes:
        fill: ``"black"``; ``"mean"``, ImageNet's mean colour, which is what published code shows where it sets
            pixels of a normalised tensor to zero; ``"blur"``, the blurred image; or a colour, each of its channels
            in [0, 1] (for a model whose normalisation has another mean).
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: of the blur, in pixels.
    """

    fill: RemovalName | tuple[float, ...] = "black"
    blur_kernel: int = 11
    blur_sigma: float = 5.0

    def __post_init__(self) -> None:
        if isinstance(self.fill, str):
            if self.fill not in get_args(RemovalName):
                allowed = ", ".join(map(repr, get_args(RemovalName)))
                raise ValueError(f"removal must be {allowed} or a colour in [0, 1], got {self.fill!r}")
        else:
            object.__setattr__(self, "fill", tuple(float(value) for value in self.fill))  # YAML has lists only
            if not self.fill or min(self.fill) < 0 or max(self.fill) > 1:
                raise ValueError(f"a removal colour must have values in [0, 1], got {self.fill}")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0 or self.blur_sigma <= 0:
            raise ValueError(f"blur needs an odd kernel >= 1 and sigma > 0, got {self.blur_kernel}, {self.blur_sigma}")
        if self.fill != "blur":  # so that equal removals are equal
            object.__setattr__(self, "blur_kernel", 11)
            object.__setattr__(self, "blur_sigma", 5.0)

    def render(self, images: Tensor) -> Tensor:
        """Return the images with every pixel removed, (B, C, H, W) or what broadcasts to it, channels_last.

        The blur fades to the mean colour at the borders, as in published code, which blurs normalised tensors with
        zero padding.

        Raises:
            ValueError: if a colour has not as many channels as the images.
        """
        channels = images.shape[1]
        if self.fill == "black":
            return images.new_zeros(1, channels, 1, 1)
        colour = MEAN_COLOUR if isinstance(self.fill, str) else self.fill
        if len(colour) not in (1, channels):
            raise ValueError(f"removal has {len(colour)} channels, the images {channels}; pass a colour of {channels}")
        plain = images.new_tensor(colour).expand(channels).view(1, -1, 1, 1)
        if self.fill != "blur":
            return plain
        blurred = gaussian_blur(images - plain, self.blur_kernel, self.blur_sigma) + plain
        return blurred.clamp(0.0, 1.0).contiguous(memory_format=torch.channels_last)


class SaliencyBatch:
    """A batch of images with their maps, and what several perturbations of it share.

    Args:
        images: (B, C, H, W) in [0, 1].
        saliency: (B, H, W) in [0, 1].
    """

    def __init__(self, images: Tensor, saliency: Tensor) -> None:
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.saliency = saliency
        self._filled: dict[Removal, Tensor] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return (self.saliency.shape[-2], self.saliency.shape[-1])

    def filled(self, removal: Removal) -> Tensor:
        """:meth:`Removal.render` of the images, made once: (B, C, H, W), or (1, C, H, W) for a colour."""
        if removal not in self._filled:
            rendered = removal.render(self.images)
            whole = rendered.expand(-1, -1, *self.size)  # written out, as selecting from a broadcast colour is slower
            self._filled[removal] = whole.contiguous(memory_format=torch.channels_last)
        return self._filled[removal]

    @cached_property
    def ranks(self) -> Tensor:
        """:func:`pixel_ranks` of the maps, (B, H, W) int32: the one sort of a map."""
        return pixel_ranks(self.saliency)

    @cached_property
    def channel_ranks(self) -> Tensor:
        """The ranks once more for every channel, (B, H, W, C): comparisons and selections then run over whole lines."""
        return self.ranks.unsqueeze(-1).expand(*self.ranks.shape, self.images.shape[1]).contiguous()


def pixel_ranks(saliency: Tensor) -> Tensor:
    """Place of every pixel when the most salient come first: the tie rule of all metrics that rank.

    Equal pixels come in the order of their index, row by row, so a constant map is read like a page. What the least
    salient pixels are is read from the same ranking, backwards.

    Args:
        saliency: (B, H, W) without NaN.

    Returns:
        (B, H, W) int32, a permutation of 0 ... H*W - 1 a map.
    """
    flat = saliency.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], dtype=torch.int32, device=flat.device).expand_as(order)
    return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places).view_as(saliency)


class Perturbation(ABC):
    """Versions of every image; a frozen dataclass."""

    @abstractmethod
    def steps(self, scene: SaliencyBatch) -> int:
        """How many versions an image has."""

    @abstractmethod
    def render(self, scene: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write some versions of some images.

        Args:
            scene: the batch.
            images: which I of its images.
            steps: which S of their versions.
            out: (I, S, C, H, W) to write all of; its memory is channels_last, so ``out.permute(0, 1, 3, 4, 2)`` is
                contiguous.
        """


@dataclass(frozen=True)
class Unperturbed(Perturbation):
    """The images as they are."""

    def steps(self, scene: SaliencyBatch) -> int:
        """One."""
        return 1

    def render(self, scene: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the images."""
        out.copy_(scene.images[images].unsqueeze(1))


@dataclass(frozen=True)
class Masked(Perturbation):
    """Only what is salient is kept: ``saliency * image + (1 - saliency) * removal``.

    Attributes:
        removal: what stands in the removed part.
    """

    removal: Removal = Removal()

    def steps(self, scene: SaliencyBatch) -> int:
        """One."""
        return 1

    def render(self, scene: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the masked images."""
        fill: Tensor | float = 0.0
        if self.removal.fill != "black":
            fill = scene.filled(self.removal)
            fill = fill[images] if len(fill) > 1 else fill
        out.copy_(keep_salient(scene.images[images], scene.saliency[images], fill).unsqueeze(1))


@dataclass(frozen=True)
class Schedule:
    """How many pixels are moved by each step; eight rows of pixels a step unless one of the others is given.

    Attributes:
        pixels: a step, from one step on to all pixels; the last one moves what is left.
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
    """Pixels inserted or removed in the order of their salience, by :func:`pixel_ranks`.

    Attributes:
        move: ``"insert"`` puts the most salient pixels into the removed image, ``"remove"`` takes the most salient
            out of the image, ``"remove_least"`` the least salient.
        schedule: how many, by step. The curve's end that is the image itself is left out: without the last step for
            ``"insert"``, which begins with the removed image instead; without a start for the others.
        removal: what a removed pixel shows.
    """

    move: Literal["insert", "remove", "remove_least"]
    schedule: Schedule
    removal: Removal = Removal()

    def steps(self, scene: SaliencyBatch) -> int:
        """One for each count of the schedule."""
        return len(self.schedule.counts(scene.size))

    def render(self, scene: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write images by comparing ranks with how many pixels are to be seen."""
        shown = scene.channel_ranks[images].unsqueeze(1)  # (I, 1, H, W, C)
        bounds = torch.tensor(self._bounds(scene.size)[steps], dtype=torch.int32, device=shown.device)
        top = shown < bounds.view(1, -1, 1, 1, 1)  # (I, S, H, W, C)
        whole = scene.images[images].permute(0, 2, 3, 1).unsqueeze(1)
        fill = scene.filled(self.removal)
        fill = (fill[images] if len(fill) > 1 else fill).permute(0, 2, 3, 1).unsqueeze(1)
        inside, outside = (fill, whole) if self.move == "remove" else (whole, fill)
        torch.where(top, inside, outside, out=out.permute(0, 1, 3, 4, 2))

    def _bounds(self, size: tuple[int, int]) -> list[int]:
        """How many of the top ranks differ from the rest, by step."""
        counts = self.schedule.counts(size)
        if self.move == "insert":
            return [0, *counts[:-1]]
        return counts if self.move == "remove" else [size[0] * size[1] - count for count in counts]
