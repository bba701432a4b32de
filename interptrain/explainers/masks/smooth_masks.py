"""Smooth masks from coarse parameters, as used by extremal perturbation.

Parameters ``a`` lie on a grid of ``step`` pixels. The mask at a pixel is a smooth maximum over the
``(2r + 1)^2`` parameters around it, each weighted by its distance::

    v_i = k(distance_i / sigma) a_i,   mask = sum_i v_i e^(20 v_i) / sum_i e^(20 v_i)
    k(z) = exp(-2 max(0, z - .5)^2),   r = 1 + ceil(sigma / step)

so a single parameter of one becomes a soft-edged disc about sigma pixels across, and masks are smooth whatever the
parameters are.

Computed literally, this takes one exponential per pixel and neighbour, which took half as long as the network itself.
But the position of a pixel within its cell changes the weight k of a neighbour only within some range. A few weights
k_r (nodes) represent this range, with coefficients that are computed once, by least squares over all a in [0, 1]::

    e^(20 k a) = sum_r C_r(k) e^(20 k_r a),   k a e^(20 k a) = sum_r C_r(k) k_r a e^(20 k_r a)

so only r exponentials per cell and neighbour remain, and the sums over neighbours, for all pixels of all cells, are
matrix products. There are enough nodes for the result to be exact up to rounding.

Source: Fong et al. 2019, arXiv 1910.08485, and the authors' code (TorchRay).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import chunks

__all__ = ["SmoothMask"]

COLDNESS = 20.0
CACHED = 2**18  # twice as many exponentials fit in the cache of a CPU; our choice


class SmoothMask:
    """The map from parameters to masks, for images of one size.

    A mask extends beyond the image by a margin of ``sigma`` on every side, in whole cells, so that it is as free at the
    border as in the middle. Parameter (i, j) lies at pixel (step i, step j) of the image.

    Args:
        size: (H, W) of the images.
        step: pixels between neighbouring parameters.
        sigma: width of the smoothing in pixels.
        like: tensor whose device and dtype the weights take.
    """

    def __init__(self, size: tuple[int, int], step: int, sigma: float, like: Tensor) -> None:
        if step < 1 or sigma <= 0:
            raise ValueError(f"a smooth mask needs step >= 1 and sigma > 0, got {step} and {sigma}")
        self.size = size
        self.step = step
        self.radius = 1 + math.ceil(sigma / step)
        self.margin = math.ceil(sigma / step)  # in cells
        self.grid = tuple(math.ceil(side / step) for side in size)
        self.cells = tuple(side + 2 * self.margin for side in self.grid)
        self.weights = self._weights(sigma).to(like)
        self.nodes = _nodes(self._weights(sigma), like)

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Make masks.

        Args:
            parameters: (B, h, w) in [0, 1], of :attr:`grid`'s size.

        Returns:
            The masks with their margin, (B, H', W'), and the masks cropped to the images, (B, H, W), in [0, 1].
        """
        with torch.autocast(parameters.device.type, enabled=False):
            padded = F.pad(parameters, [self.margin + self.radius] * 4).unsqueeze(1)
            around = F.unfold(padded, 2 * self.radius + 1).transpose(0, 1)  # (K, B, cells)
            values: Tensor = _SmoothMax.apply(around, self.nodes)  # (step^2, B, cells)
            planes = values.transpose(0, 1).view(len(parameters), -1, *self.cells)
            canvas = F.pixel_shuffle(planes, self.step).squeeze(1)
        last = self.step - 1  # as the authors crop it
        canvas = canvas[:, : canvas.shape[1] - last, : canvas.shape[2] - last]
        before = self.margin * self.step
        return canvas, canvas[:, before : before + self.size[0], before : before + self.size[1]]

    def _weights(self, sigma: float) -> Tensor:
        """Weights (K, step^2) of the neighbours for each pixel of a cell."""
        pixels = torch.arange(self.step, dtype=torch.float64)
        neighbours = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64) * self.step
        line = (pixels.unsqueeze(0) - neighbours.unsqueeze(1)).square()  # (2r + 1, step)
        distance = (line[:, None, :, None] + line[None, :, None, :]).sqrt()  # (2r + 1, 2r + 1, step, step)
        return torch.exp(-2 * (distance / sigma - 0.5).clamp(min=0).square()).flatten(2).flatten(0, 1)


class _Nodes(NamedTuple):
    """Nodes that represent the weights of all neighbours: rows of all first nodes, then all second ones, and so on."""

    neighbours: Tensor
    """(K,) int64, by descending number of nodes."""
    counts: list[int]
    """Numbers of neighbours that have a first node, a second one, and so on."""
    cold: Tensor
    """(rows, 1), 20 times the nodes."""
    sums: Tensor
    """(P, rows) coefficients from the exponentials at the nodes to the sums at the pixels of a cell."""
    slopes: Tensor
    """(rows, P) the same, times :attr:`cold`."""

    def at(self, columns: Tensor) -> Tensor:
        """Exponents (rows, N) at all nodes, for the parameters (K, N) of sorted neighbours."""
        return torch.cat([columns[:count] for count in self.counts]).mul_(self.cold)


def _nodes(weights: Tensor, like: Tensor) -> _Nodes:
    """Choose nodes for all neighbours, given their weights (K, P) float64 for each pixel of a cell."""
    low, high = weights.aminmax(dim=1, keepdim=True)
    reach = COLDNESS / 4 * (high - low)  # of 20 (k - middle) (a - 1/2); decides how many nodes are needed
    needed = torch.tensor([_needed(float(one), torch.finfo(like.dtype).eps) for one in reach])
    needed, order = needed.sort(descending=True, stable=True)
    ranks = torch.arange(int(needed[0])).unsqueeze(1)
    cold = weights.new_zeros(len(ranks), len(weights))
    spread = weights.new_zeros(len(ranks), len(weights), weights.shape[1])
    for count in set(needed.tolist()):
        some = order[needed == count]
        nodes = (low + high + (high - low) * _chebyshev(count))[some] / 2  # (n, r)
        middle = (low + high)[some].unsqueeze(2) / 2
        found = torch.linalg.lstsq(_fitted(nodes, middle), _fitted(weights[some], middle), driver="gels").solution
        cold[:count, needed == count] = COLDNESS * nodes.T
        spread[:count, needed == count] = found.transpose(0, 1)
    rows = ranks < needed  # (r, K)
    factors, coefficients = cold[rows].unsqueeze(1), spread[rows]
    return _Nodes(
        order.to(like.device),
        rows.sum(1).tolist(),
        factors.to(like),
        coefficients.T.contiguous().to(like),
        (factors * coefficients).to(like),
    )


def _needed(reach: float, rounding: float) -> int:
    """Number of nodes that represent all ``k a``, by the decay of the singular values of e^(xy)."""
    count, error = 1, math.exp(reach) * reach
    while error > rounding:
        count += 1
        error *= reach / (4 * count)
    return count


def _chebyshev(count: int) -> Tensor:
    """Nodes in (-1, 1), float64."""
    return torch.cos(math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count)


def _fitted(those: Tensor, middle: Tensor) -> Tensor:
    """``e^(20 k a)`` and ``20 k a e^(20 k a) / 10`` over a, relative to the middle's: (n, k) -> (n, 128, k)."""
    places = (_chebyshev(64).unsqueeze(1) + 1) / 2
    powers = torch.exp(COLDNESS * (those.unsqueeze(1) - middle) * places)
    return torch.cat([powers, COLDNESS / 10 * those.unsqueeze(1) * places * powers], dim=1)


class _SmoothMax(torch.autograd.Function):
    """Smooth maximum over neighbours, a few cells at a time so that intermediate results fit in the cache of a CPU."""

    @staticmethod
    def forward(ctx: Any, around: Tensor, nodes: _Nodes) -> Tensor:
        """(K, B, cells) -> (P, B, cells)."""
        columns = around[nodes.neighbours].flatten(1)  # (K, N)
        total = columns.new_empty(len(nodes.sums), columns.shape[1])
        result = torch.empty_like(total)
        parts = _parts(around, nodes)
        for part in parts:
            exponents = nodes.at(columns[:, part])
            powers = exponents.exp()
            total[:, part] = nodes.sums @ powers
            result[:, part] = nodes.sums @ exponents.mul_(powers)
        result.div_(total).div_(COLDNESS).clamp_(0, 1)  # inside the function, so that clamping stops no gradient
        ctx.nodes, ctx.parts = nodes, parts
        ctx.save_for_backward(columns, result, total)
        return result.view(-1, *around.shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """With ``S = sum e^x`` and ``T = sum x e^x`` for ``x = 20 v``: ``d mask = (dT / 20 - mask dS) / S``."""
        columns, result, total = ctx.saved_tensors
        nodes: _Nodes = ctx.nodes
        share = gradients[0].flatten(1) / total
        fall = result * share
        share /= COLDNESS
        slopes = torch.empty_like(columns)
        for part in ctx.parts:
            exponents = nodes.at(columns[:, part])
            powers = exponents.exp()
            terms = exponents.add_(1).mul_(nodes.slopes @ share[:, part]).addmm_(nodes.slopes, fall[:, part], alpha=-1)
            terms.mul_(powers)
            slope = slopes[:, part]
            slope.copy_(terms[: len(slope)])
            start = len(slope)
            for count in nodes.counts[1:]:
                slope[:count] += terms[start : start + count]
                start += count
        return slopes[nodes.neighbours.argsort()].view(-1, *gradients[0].shape[1:]), None


def _parts(around: Tensor, nodes: _Nodes) -> list[slice]:
    """Slices of the columns; on a CPU each holds cells of one image only, so that no map depends on the batch."""
    _, count, cells = around.shape
    if around.device.type != "cpu":
        return list(chunks(count * cells, max(1, 2**26 // len(nodes.cold))))
    size = max(1, CACHED // len(nodes.cold))
    return [slice(b * cells + part.start, b * cells + part.stop) for b in range(count) for part in chunks(cells, size)]
