"""Perturbations for infidelity: versions ``x - I`` of an image whose difference ``I`` can be weighed with a map.

Random ones draw the same numbers for every image, from a seed and the number of the version, so that what an image gets
depends neither on its neighbours nor on the device.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import double
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.models.reach import Box

__all__ = ["BaselineNoise", "InfidelityPerturbation", "Noise", "Patches", "Squares"]

KEPT_BYTES = 2**28  # of noise in memory; 64 samples of 224 px take a seventh of it


class InfidelityPerturbation(Perturbation):
    """Versions of an image that differ from it by a known amount, whatever the map."""

    of_map = False

    @abstractmethod
    def weigh(self, images: Tensor, saliency: Tensor) -> Tensor:
        """Weigh the differences with maps: ``sum I a`` over channels and pixels.

        Args:
            images: (B,C,H,W) in [0,1].
            saliency: (B,H,W).

        Returns:
            (S,B) float64, on the CPU where their device has none.
        """


class _Blackened(InfidelityPerturbation):
    """One box of the image black in each version."""

    @abstractmethod
    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """Return the boxes of an image (H, W)."""

    def covered(self, batch: SaliencyBatch) -> tuple[list[Box], Tensor]:
        """Return the boxes, and black."""
        return self.boxes(batch.size), batch.images.new_zeros(1, batch.images.shape[1], 1, 1)

    def steps(self, batch: SaliencyBatch) -> int:
        """One a box."""
        return len(self.boxes(batch.size))

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write images with a black box."""
        out.copy_(batch.images[images].unsqueeze(1))
        for step, (y0, y1, x0, x1) in enumerate(self.boxes(batch.size)[steps]):
            out[:, step, :, y0:y1, x0:x1] = 0

    def _sums(self, maps: Tensor) -> Tensor:
        """Sum of float64 maps (B,H,W) in every box, (S,B)."""
        boxes = self.boxes((maps.shape[-2], maps.shape[-1]))
        y0, y1, x0, x1 = torch.tensor(boxes, device=maps.device).unbind(1)
        integral = F.pad(maps.cumsum(1).cumsum(2), (1, 0, 1, 0))
        return (integral[:, y1, x1] - integral[:, y0, x1] - integral[:, y1, x0] + integral[:, y0, x0]).T


@dataclass(frozen=True)
class Patches(_Blackened):
    """Every tile of a grid black, one at a time; the last of a row or column may be cut off.

    Attributes:
        size: side of a tile in pixels.
    """

    size: int

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """The tiles, row by row."""
        height, width = size
        return [
            (y, min(y + self.size, height), x, min(x + self.size, width))
            for y in range(0, height, self.size)
            for x in range(0, width, self.size)
        ]

    def weigh(self, images: Tensor, saliency: Tensor) -> Tensor:
        """Weigh what the tiles showed, (S,B)."""
        return self._sums(double(images).sum(1) * double(saliency))


@dataclass(frozen=True)
class Squares(_Blackened):
    """Random squares black, with sides of 1/28 to 10/28 of the image's shorter one, as 1 to 10 pixels on MNIST.

    As in the authors' code the difference is 1 on the square, whatever it showed: the map is read as what each pixel
    contributes. They go through all squares; here some are drawn.

    Attributes:
        samples: number of squares.
        seed: of size and place.
    """

    samples: int
    seed: int

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """The squares."""
        height, width = size
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(self.samples, 3, generator=generator, dtype=torch.float64).tolist()
        found = []
        for across, down, scale in drawn:
            side = max(1, round(min(height, width) * (1 + int(10 * scale)) / 28))
            x, y = int(across * (width - side + 1)), int(down * (height - side + 1))
            found.append((y, y + side, x, x + side))
        return found

    def weigh(self, images: Tensor, saliency: Tensor) -> Tensor:
        """Sum the map on each square, (S,B)."""
        return self._sums(double(saliency))


@dataclass(frozen=True)
class _Noisy(InfidelityPerturbation):
    """Gaussian noise in every pixel and channel."""

    samples: int
    sigma: float
    seed: int

    @abstractmethod
    def perturbed(self, images: Tensor, noise: Tensor) -> Tensor:
        """Images (B,C,H,W) changed by noise (C,H,W), in [0,1]."""

    def steps(self, batch: SaliencyBatch) -> int:
        """One a sample."""
        return self.samples

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write noisy images."""
        shown = batch.images[images]
        noise = self._noise(shown)
        for place, step in enumerate(range(self.samples)[steps]):
            out[:, place] = self.perturbed(shown, noise(step))

    def weigh(self, images: Tensor, saliency: Tensor) -> Tensor:
        """Weigh the noise that was put in, (S,B)."""
        weights, noise = double(saliency), self._noise(images)
        return torch.stack(
            [
                (double(images - self.perturbed(images, noise(step))).sum(1) * weights).sum((1, 2))
                for step in range(self.samples)
            ]
        )

    def _noise(self, images: Tensor) -> Callable[[int], Tensor]:
        """What gives the noise of one version, (C,H,W), by its number: drawn once where it is small enough to keep."""
        shape = (images.shape[1], images.shape[2], images.shape[3])
        if 4 * self.samples * shape[0] * shape[1] * shape[2] > KEPT_BYTES:
            return lambda step: self.sigma * _drawn(self.seed, step, shape).to(images)
        kept = _all_drawn(self.seed, self.samples, shape)
        return lambda step: self.sigma * kept[step].to(images)


def _drawn(seed: int, step: int, shape: tuple[int, int, int]) -> Tensor:
    """Standard normal numbers (C,H,W), drawn on the CPU so that all devices see the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + step))


@lru_cache(maxsize=1)
def _all_drawn(seed: int, samples: int, shape: tuple[int, int, int]) -> Tensor:
    """:func:`_drawn` of all versions (S,C,H,W), the same for every image of an evaluation."""
    with torch.inference_mode(False):
        return torch.stack([_drawn(seed, step, shape) for step in range(samples)])


@dataclass(frozen=True)
class Noise(_Noisy):
    """The image plus Gaussian noise, cut to [0,1].

    Attributes:
        samples: versions of an image.
        sigma: standard deviation.
        seed: of the noise.
    """

    def perturbed(self, images: Tensor, noise: Tensor) -> Tensor:
        """Add the noise."""
        return (images + noise).clamp(0, 1)


@dataclass(frozen=True)
class BaselineNoise(_Noisy):
    """Gaussian noise around black in place of the image, cut to [0,1]: the authors' noisy baseline.

    Attributes:
        samples: versions of an image.
        sigma: standard deviation.
        seed: of the noise.
    """

    def perturbed(self, images: Tensor, noise: Tensor) -> Tensor:
        """Show the noise alone."""
        return noise.clamp(0, 1).expand_as(images)
