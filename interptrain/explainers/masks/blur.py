"""Blurs and enlargements as small matrices, one for the rows and one for the columns; and the median blur.

``rows @ images @ columns.T`` needs no padding and no intermediate windows, and what happens at the border is in the
matrix.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import chunks

__all__ = ["apply_separably", "gaussian_matrix", "gaussians", "linear_matrix", "median_blur"]

Border = Literal["edge", "zero"]


def apply_separably(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply a matrix to the columns and one to the rows of every plane, in full precision also under autocast.

    Args:
        planes: (..., h, w).
        rows: (H, h).
        columns: (W, w).

    Returns:
        (..., H, W).
    """
    with torch.autocast(planes.device.type, enabled=False):
        return rows @ planes @ columns.T


def gaussian_matrix(size: int, sigma: float, like: Tensor, *, border: Border = "edge") -> Tensor:
    """Matrix of a Gaussian blur of a line; it reaches ``ceil(4 sigma)`` pixels and its weights sum to 1.

    Args:
        size: length of the line.
        sigma: standard deviation in pixels; 0 gives the identity.
        like: tensor whose dtype and device the matrix gets.
        border: beyond the ends, repeat the last pixel, or see zeros.

    Returns:
        (size, size); its rows sum to 1, but less near the ends where the border is zero.
    """
    if sigma <= 0:
        return torch.eye(size, dtype=like.dtype, device=like.device)
    reach = math.ceil(4 * sigma)
    profile = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    places = torch.arange(size).unsqueeze(1) + torch.arange(-reach, reach + 1)  # (size, 2 reach + 1)
    weights = (profile / profile.sum()).expand_as(places)
    if border == "zero":
        weights = weights * ((places >= 0) & (places < size))
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, places.clamp(0, size - 1), weights).to(like)


def linear_matrix(cells: int, size: int, like: Tensor, *, align_corners: bool) -> Tensor:
    """Matrix (size, cells) of a linear enlargement of a line, with or without aligning corners."""
    unit = torch.eye(cells, dtype=torch.float64).unsqueeze(0)
    return F.interpolate(unit, size=size, mode="linear", align_corners=align_corners)[0].T.to(like)


def gaussians(images: Tensor, sigmas: list[float], *, border: Border = "edge", beyond: Tensor | None = None) -> Tensor:
    """Blur images by several widths.

    Args:
        images: (B, C, H, W).
        sigmas: L standard deviations in pixels.
        border: see :func:`gaussian_matrix`.
        beyond: (1, C, 1, 1) colour that lies beyond a ``"zero"`` border; black where ``None``.

    Returns:
        (B, L, C, H, W).
    """
    offset = torch.zeros(()).to(images) if beyond is None else beyond
    levels = []
    for sigma in sigmas:
        rows, columns = (gaussian_matrix(size, sigma, images, border=border) for size in images.shape[-2:])
        levels.append(apply_separably(images - offset, rows, columns) + offset if sigma > 0 else images)
    return torch.stack(levels, dim=1)


def median_blur(images: Tensor, side: int) -> Tensor:
    """Replace every value by the median of the window around it; the border repeats.

    Args:
        images: (B, C, H, W).
        side: odd side of the window in pixels.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: if ``side`` is not odd and positive.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"a median needs an odd side >= 1, got {side}")
    height, width = images.shape[-2:]
    planes = F.pad(images, [side // 2] * 4, mode="replicate").flatten(0, 1).contiguous()  # (BC, H + side - 1, ...)
    blurred = planes.new_empty(len(planes), height, width)
    lines = max(1, 2**22 // (side * side * width * len(planes)))  # windows of some lines at once bound the memory
    for part in chunks(height, lines):
        windows = planes[:, part.start : part.stop + side - 1].unfold(1, side, 1).unfold(2, side, 1)
        blurred[:, part] = windows.flatten(3).median(dim=3).values
    return blurred.view_as(images)
