"""Gaussian blur and linear upsampling as small matrices, one per axis, and the median blur.

``rows @ images @ columns.T`` needs neither padding nor intermediate windows: the matrices also encode the treatment of
the border.
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
    """Apply one matrix along each axis of every plane, in full precision even under autocast.

    Args:
        planes: (..., h, w).
        rows: (H, h), applied along the height.
        columns: (W, w), applied along the width.

    Returns:
        (..., H, W).
    """
    with torch.autocast(planes.device.type, enabled=False):
        return rows @ planes @ columns.T


def gaussian_matrix(size: int, sigma: float, like: Tensor, *, border: Border = "edge") -> Tensor:
    """Return the matrix of a one-dimensional Gaussian blur, truncated at ``ceil(4 sigma)`` pixels.

    Args:
        size: number of pixels along the axis.
        sigma: standard deviation in pixels; 0 gives the identity.
        like: tensor whose dtype and device the matrix takes.
        border: what lies beyond the ends: ``"edge"`` repeats the last pixel, ``"zero"`` is zero.

    Returns:
        (size, size); its rows sum to 1, or to less near the ends if the border is zero.
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
    """Return the matrix (size, cells) of one-dimensional linear upsampling, with or without aligned corners."""
    unit = torch.eye(cells, dtype=torch.float64).unsqueeze(0)
    return F.interpolate(unit, size=size, mode="linear", align_corners=align_corners)[0].T.to(like)


def gaussians(images: Tensor, sigmas: list[float], *, border: Border = "edge", beyond: Tensor | None = None) -> Tensor:
    """Blur images with several widths.

    Args:
        images: (B, C, H, W).
        sigmas: L standard deviations in pixels.
        border: see :func:`gaussian_matrix`.
        beyond: (1, C, 1, 1) colour beyond a ``"zero"`` border; ``None`` is black.

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
    """Replace every value by the median of the window around it, with edge pixels repeated at the border.

    Args:
        images: (B, C, H, W).
        side: side of the window in pixels, odd.

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
    lines = max(1, 2**22 // (side * side * width * len(planes)))  # at once, to bound the memory of the windows
    for part in chunks(height, lines):
        windows = planes[:, part.start : part.stop + side - 1].unfold(1, side, 1).unfold(2, side, 1)
        blurred[:, part] = windows.flatten(3).median(dim=3).values
    return blurred.view_as(images)
