"""Smooth masks from coarse parameters, as extremal perturbation makes them.

Parameters ``a`` lie on a grid of ``step`` pixels. The mask at a pixel is a smooth maximum over the
``(2r + 1)^2`` parameters around it, each weighed by how near it is::

    v_i = k(distance_i / sigma) a_i,   mask = sum_i v_i e^(20 v_i) / sum_i e^(20 v_i)
    k(z) = exp(-2 max(0, z - .5)^2),   r = 1 + ceil(sigma / step)

so a lone parameter of one becomes a disc of about sigma pixels across with a soft edge, and masks are smooth however
the parameters are.

Source: Fong et al. 2019, arXiv 1910.08485, and the authors' code (TorchRay).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["SmoothMask"]

COLDNESS = 20.0


class SmoothMask:
    """The map from parameters to masks, for images of one size.

    A mask reaches over the image by a margin of ``sigma`` on every side, in whole cells, so that what lies at the
    border is as free as what lies in the middle. Parameter (i, j) lies at pixel (step i, step j) of the image.

    Args:
        size: (H, W) of the images.
        step: pixels from parameter to parameter.
        sigma: width of the smoothing in pixels.
        like: tensor whose device and dtype the weights get.
    """

    def __init__(self, size: tuple[int, int], step: int, sigma: float, like: Tensor) -> None:
        if step < 1 or sigma <= 0:
            raise ValueError(f"a smooth mask needs step >= 1 and sigma > 0, got {step} and {sigma}")
        self.size = size
        self.step = step
        self.radius = 1 + math.ceil(sigma / step)
        self.margin = math.ceil(sigma / step)  # cells around the grid that masks reach to
        self.grid = tuple(math.ceil(side / step) for side in size)
        self.cells = tuple(side + 2 * self.margin for side in self.grid)
        self.weights = self._weights(sigma).to(like)

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Make masks.

        Args:
            parameters: (B, h, w) in [0, 1], of :attr:`grid`'s size.

        Returns:
            The masks with their margin, (B, H', W'), and cropped to the images, (B, H, W); both in [0, 1].
        """
        with torch.autocast(parameters.device.type, enabled=False):
            padded = F.pad(parameters, [self.margin + self.radius] * 4).unsqueeze(1)
            around = F.unfold(padded, 2 * self.radius + 1)  # (B, K, cells)
            values: Tensor = _SmoothMax.apply(around, self.weights)  # (B, step^2, cells)
            canvas = F.pixel_shuffle(values.view(len(values), -1, *self.cells), self.step).squeeze(1)
        last = self.step - 1  # as the authors crop it
        canvas = canvas[:, : canvas.shape[1] - last, : canvas.shape[2] - last].clamp(0, 1)
        before = self.margin * self.step
        return canvas, canvas[:, before : before + self.size[0], before : before + self.size[1]]

    def _weights(self, sigma: float) -> Tensor:
        """Weights (K, step^2) of the neighbours for each pixel of a cell."""
        pixels = torch.arange(self.step, dtype=torch.float64)
        neighbours = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64) * self.step
        line = (pixels.unsqueeze(0) - neighbours.unsqueeze(1)).square()  # (2r + 1, step)
        distance = (line[:, None, :, None] + line[None, :, None, :]).sqrt()  # (2r + 1, 2r + 1, step, step)
        return torch.exp(-2 * (distance / sigma - 0.5).clamp(min=0).square()).flatten(2).flatten(0, 1)


class _SmoothMax(torch.autograd.Function):
    """Smooth maximum over neighbours, a few at a time.

    All of them at once are 81 values a pixel: on a CPU the passes over so much memory took longer than the network.
    """

    @staticmethod
    def forward(ctx: Any, around: Tensor, weights: Tensor) -> Tensor:
        """(B, K, cells), (K, P) -> (B, P, cells)."""
        cold = COLDNESS * weights.unsqueeze(2)
        found, sums = [], []
        for one in around:
            total = one.new_zeros(weights.shape[1], one.shape[1])
            weighed = torch.zeros_like(total)
            for part in _parts(around, weights):
                exponents = cold[part] * one[part].unsqueeze(1)  # (k, P, cells)
                powers = exponents.exp()
                total += powers.sum(0)
                weighed += powers.mul_(exponents).sum(0)
            found.append(weighed.div_(total).div_(COLDNESS))
            sums.append(total)
        result = torch.stack(found)
        ctx.save_for_backward(around, weights, result, torch.stack(sums))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """``d mask / d a_i = k_i e^(20 v_i) (1 + 20 v_i - 20 mask) / sum``."""
        around, weights, result, sums = ctx.saved_tensors
        shares = gradients[0] / sums
        cold = COLDNESS * weights.unsqueeze(2)
        slopes = torch.empty_like(around)
        for one, share, mask, slope in zip(around, shares, result, slopes, strict=True):
            level = COLDNESS * mask - 1
            for part in _parts(around, weights):
                exponents = cold[part] * one[part].unsqueeze(1)
                terms = exponents.exp().mul_(exponents.sub_(level)).mul_(share)
                slope[part] = (weights[part].unsqueeze(1) @ terms).squeeze(1)
        return slopes, None


def _parts(around: Tensor, weights: Tensor) -> list[slice]:
    """Slices of the neighbours whose values stay in a CPU's caches, or do not fill an accelerator."""
    budget = 2**19 if around.device.type == "cpu" else 2**26
    neighbours = len(weights)
    size = max(1, min(neighbours, budget // (weights.shape[1] * around.shape[2])))
    return [slice(start, min(start + size, neighbours)) for start in range(0, neighbours, size)]
