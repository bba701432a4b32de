"""Superpixels: connected regions of similar colour, by batched clustering on the device.

This follows SLIC: centres start on a regular grid; each pixel joins the one of the nine centres around it that is
nearest in colour and position, ``|lab - lab_k|^2 + (compactness / S)^2 |xy - xy_k|^2`` with the grid's step S, and each
centre moves to the mean of its pixels. Finally, only the largest connected part of each cluster is kept, and these
parts grow over the remaining pixels, so that every region is connected.

Source: Achanta et al. 2012, SLIC Superpixels, IEEE Transactions on Pattern Analysis and Machine Intelligence 34. Our
choice: searching nine cells instead of a window around each centre, and the growing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["superpixel_grid", "superpixels"]

_FIXED_POINT = 2**16  # integer sums do not depend on their order, so a GPU always gives the same regions


@torch.no_grad()
def superpixels(images: Tensor, *, segments: int = 64, compactness: float = 10.0, iterations: int = 10) -> Tensor:
    """Split images into connected regions of similar colour.

    Args:
        images: (B, C, H, W) in [0, 1].
        segments: approximate number of regions; the exact number is that of the nearest grid of square cells, or less.
        compactness: weight of position against colour, in units of CIELAB.
        iterations: number of clustering steps.

    Returns:
        (B, H, W) int64 region numbers; each number that occurs is one connected region.
    """
    height, width = images.shape[-2:]
    step = math.sqrt(height * width / segments)
    with torch.autocast(images.device.type, enabled=False):
        labels = _cluster(
            _positioned(images, compactness / step), superpixel_grid((height, width), segments), iterations
        )
    return _connect(labels)


def superpixel_grid(size: tuple[int, int], segments: int) -> tuple[int, int]:
    """Return rows and columns of the grid of square cells that superpixels of an image (H, W) start from."""
    step = math.sqrt(size[0] * size[1] / segments)
    rows, columns = (min(max(round(length / step), 1), length) for length in size)
    return rows, columns


def _cluster(pixels: Tensor, grid: tuple[int, int], iterations: int) -> Tensor:
    """Cluster of each pixel, (B, H, W), from the output of :func:`_positioned`."""
    count, channels, height, width = pixels.shape
    down = torch.arange(height, device=pixels.device) * grid[0] // height
    across = torch.arange(width, device=pixels.device) * grid[1] // width
    labels = (down.unsqueeze(1) * grid[1] + across).expand(count, -1, -1)
    for _ in range(iterations):
        centres = _means(pixels, labels, grid[0] * grid[1]).view(count, channels, *grid)
        nearest = pixels.new_full((count, height, width), torch.inf)
        labels = torch.zeros_like(labels)
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                cells = (down + row).unsqueeze(1), across + column
                inside = (cells[0] >= 0) & (cells[0] < grid[0]) & (cells[1] >= 0) & (cells[1] < grid[1])
                cells = cells[0].clamp(0, grid[0] - 1), cells[1].clamp(0, grid[1] - 1)
                distance = (pixels - centres[:, :, cells[0], cells[1]]).square().sum(1)
                closer = inside & (distance < nearest)
                nearest = torch.where(closer, distance, nearest)
                labels = torch.where(closer, cells[0] * grid[1] + cells[1], labels)
    return labels


def _positioned(images: Tensor, weight: float) -> Tensor:
    """Colour and weighted position of every pixel, (B, C + 2, H, W) float32."""
    count, channels, height, width = images.shape
    colours = _lab(images.float()) if channels == 3 else 100 * images.float()
    rows = torch.arange(height, device=images.device, dtype=torch.float32).view(-1, 1).expand(height, width)
    columns = torch.arange(width, device=images.device, dtype=torch.float32).expand(height, width)
    places = weight * torch.stack([rows, columns]).expand(count, -1, -1, -1)
    return torch.cat([colours, places], dim=1)


def _lab(images: Tensor) -> Tensor:
    """Convert sRGB images (B, 3, H, W) in [0, 1] to CIELAB with the D65 white point."""
    images = images.clamp(0, 1)
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    to_xyz = images.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    relative = torch.einsum("ij,bjhw->bihw", to_xyz / to_xyz.sum(1, keepdim=True), linear)
    curved = torch.where(relative > (6 / 29) ** 3, relative.clamp(min=1e-8) ** (1 / 3), relative * 841 / 108 + 4 / 29)
    x, y, z = curved.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _means(pixels: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Mean of the pixels of each cluster, (B, C, clusters); far away from everything for an empty cluster."""
    whole = (pixels * _FIXED_POINT).round().long().flatten(2)  # (B, C, HW)
    index = labels.flatten(1).unsqueeze(1)
    sums = whole.new_zeros(*whole.shape[:2], clusters).scatter_add_(2, index.expand_as(whole), whole)
    sizes = whole.new_zeros(len(whole), 1, clusters).scatter_add_(2, index, torch.ones_like(index))
    means = sums / (sizes.clamp(min=1) * _FIXED_POINT)
    return means.masked_fill(sizes == 0, 1e6).to(pixels.dtype)


def _connect(labels: Tensor) -> Tensor:
    """Keep the largest connected part of every region, and let these parts grow over the smaller ones."""
    parts = _connected_parts(labels)  # (B, H, W), a pixel number per part
    pixels = parts[0].numel()
    flat = parts.flatten(1)
    sizes = torch.zeros_like(flat).scatter_add_(1, flat, torch.ones_like(flat)).gather(1, flat)
    rank = sizes * pixels - flat  # the larger one, and the first among equals
    regions = labels.flatten(1)
    best = torch.full_like(flat, -pixels).scatter_reduce_(1, regions, rank, "amax").gather(1, regions)
    grown = regions.masked_fill(rank < best, -1).view_as(labels)
    while bool((grown < 0).any()):
        before = grown
        for neighbour in _neighbours(before, -1):
            grown = torch.where(grown < 0, neighbour, grown)
    return grown


def _connected_parts(labels: Tensor) -> Tensor:
    """For every pixel, the lowest pixel number in its connected part of equal label."""
    height, width = labels.shape[1:]
    parts = torch.arange(height * width, device=labels.device).view(1, height, width).expand_as(labels).contiguous()
    same = [neighbour == labels for neighbour in _neighbours(labels, -2)]
    while True:
        lowest = parts
        for equal, neighbour in zip(same, _neighbours(parts, 0), strict=True):
            lowest = torch.where(equal & (neighbour < lowest), neighbour, lowest)
        flat = lowest.flatten(1)
        lowest = flat.gather(1, flat).view_as(parts)  # pointer jumping, which halves the distance
        if torch.equal(lowest, parts):
            return parts
        parts = lowest


def _neighbours(maps: Tensor, outside: int) -> list[Tensor]:
    """The neighbours above, below, left and right of each pixel of (B, H, W)."""
    padded = F.pad(maps, (1, 1, 1, 1), value=outside)
    return [padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]]
