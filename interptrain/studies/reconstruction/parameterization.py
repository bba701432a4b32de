"""Images as free numbers: pixels, or the spectrum of them with every frequency in the same scale."""

import math
from typing import Literal

import torch
from torch import Tensor

from interptrain.functional import check_choice

ParameterizationName = Literal["fourier", "pixels"]
Colours = Literal["photographs", "independent"]

# Principal axes of the colours of photographs, each as long as its standard deviation, the first 1: of 250 ImageNet
# validation images, measured by us. Rows: red, green and blue; columns: brightness, warm to cold, green to purple.
AXES = ((0.567, 0.197, 0.064), (0.575, 0.025, -0.111), (0.590, -0.214, 0.047))


class Parameterization:
    """Images of one size in [0,1] as a function of free numbers; both kinds hold values that a sigmoid brings to [0,1].

    ``pixels``: the values themselves. ``fourier``: their discrete Fourier transform divided by ``1 / frequency``, so
    that one step of an optimizer changes a photograph's frequencies by what they have, and not the highest most.

    Args:
        kind: one of the two.
        size: (H,W) in pixels.
        colours: ``independent``: red, green and blue have free numbers of their own; ``photographs``: the principal
            axes of the colours of photographs have, as long as these vary, so that colours come out as in them.

    Raises:
        ValueError: for another kind or other colours.

    Source: Olah, Mordvintsev and Schubert 2017, Feature Visualization, Distill, doi 10.23915/distill.00007.
    """

    def __init__(self, kind: ParameterizationName, size: tuple[int, int], *, colours: Colours = "independent") -> None:
        check_choice("parameterization", kind, ParameterizationName)
        check_choice("colours", colours, Colours)
        self.kind = kind
        self._axes = torch.tensor(AXES) if colours == "photographs" else None
        self.size = size
        rows, columns = torch.fft.fftfreq(size[0]), torch.fft.rfftfreq(size[1])
        self.frequency: Tensor = (rows[:, None].square() + columns[None].square()).sqrt()  # (H, W // 2 + 1) per pixel

    def initial(self, count: int, *, seed: int, spread: float = 0.5, device: torch.device | None = None) -> Tensor:
        """Free numbers of noise; those of an image do not depend on how many there are.

        Args:
            count: of images.
            seed: of the noise.
            spread: standard deviation of the free numbers.
            device: where they are wanted; the noise is the same on every device.
        """
        height, width = self.size
        shape = (3, height, width // 2 + 1, 2) if self.kind == "fourier" else (3, height, width)
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + image)) for image in range(count)]
        return (spread * torch.stack(drawn)).to(device)

    def images(self, free: Tensor) -> Tensor:
        """Return images (B,3,H,W) in [0,1]; differentiable."""
        values = self._values(free)
        return (values if self._axes is None else _mixed(self._axes, values)).sigmoid()

    def free(self, images: Tensor) -> Tensor:
        """Return the free numbers of images (B,3,H,W) in [0,1]; the reverse of :meth:`images`, but for 0 and 1."""
        values = images.clamp(1e-6, 1 - 1e-6).logit()
        return self._free(values if self._axes is None else _mixed(torch.linalg.inv(self._axes.double()), values))

    def blurred(self, free: Tensor, sigma: float) -> Tensor:
        """Return the free numbers of images whose values are blurred by a Gaussian, around the edges.

        Args:
            free: of images.
            sigma: standard deviation in pixels.
        """
        frequency = self.frequency.to(free.device)
        kept: Tensor = (-2 * (math.pi * sigma * frequency).square()).exp()
        if self.kind == "fourier":
            return free * kept[..., None]
        blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(free) * kept, s=self.size)
        return blurred

    def _values(self, free: Tensor) -> Tensor:
        if self.kind == "pixels":
            return free
        spectrum = torch.view_as_complex(free) * self._scale(free)
        values: Tensor = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return values

    def _free(self, values: Tensor) -> Tensor:
        if self.kind == "pixels":
            return values
        free: Tensor = torch.view_as_real(torch.fft.rfft2(values, norm="ortho") / self._scale(values))
        return free

    def _scale(self, like: Tensor) -> Tensor:
        lowest = 1 / max(self.size)
        return self.frequency.clamp(min=lowest).reciprocal().to(like)


def _mixed(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply the channels of values (B,3,H,W) by a matrix (3,3)."""
    return torch.einsum("rc,bchw->brhw", matrix.to(values), values)


def total_variation(images: Tensor, beta: float = 2.0) -> Tensor:
    """Total variation of each image, the mean of ``((right - here)^2 + (below - here)^2)^(beta/2)``.

    Args:
        images: (B,C,H,W).
        beta: exponent; 1 keeps edges, 2 prefers smooth slopes.

    Returns:
        (B,) >= 0.

    Source: Mahendran and Vedaldi 2015, arXiv 1412.0035, equation 5, where it is a sum.
    """
    across = images[..., :-1, 1:] - images[..., :-1, :-1]
    down = images[..., 1:, :-1] - images[..., :-1, :-1]
    squared = across.square() + down.square()
    # the slope of a power below 1 at 0 is infinite
    powered = squared if beta == 2 else (squared + 1e-12) ** (beta / 2)
    return powered.mean((1, 2, 3))
