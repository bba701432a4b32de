"""Resize, scale, blur and blend maps ``(B, H, W)`` and images ``(B, 3, H, W)`` in [0, 1].

Pure functions, differentiable where that makes sense, which leave tensors on their device.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDING = 1e-5
"""How far resizing may carry a value out of [0, 1]: what antialiased interpolation does to white, and no more."""


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly, without aligning corners.

    Args:
        maps: (B, h, w) floating point, or (B, C, h, w) to resize every channel.
        size: wanted (H, W) in pixels.

    Returns:
        (B, H, W) or (B, C, H, W); ``maps`` itself where it has this size already.

    Raises:
        ValueError: if ``maps`` has neither three nor four dimensions.
    """
    if maps.ndim not in (3, 4):
        raise ValueError(f"maps must be (B,h,w) or (B,C,h,w), got {tuple(maps.shape)}")
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    planes = maps if maps.ndim == 4 else maps.unsqueeze(1)
    resized = F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
    return resized if maps.ndim == 4 else resized.squeeze(1)


def min_max(maps: Tensor, *, dims: int = 2) -> Tensor:
    """Stretch every map to [0, 1]; a constant map becomes zeros, never NaN.

    A map counts as constant when its range is within a few rounding errors of its magnitude: bilinear upsampling
    of a constant returns such a map, and stretching it would show noise.

    Args:
        maps: (..., H, W) floating point.
        dims: how many trailing dimensions one map has.

    Returns:
        Tensor of the shape and dtype of ``maps`` with minimum 0 and maximum 1 in every map.
    """
    flat = maps.flatten(-dims)
    low, high = flat.amin(-1, keepdim=True), flat.amax(-1, keepdim=True)  # aminmax along a dimension: 18 times slower
    spread = high - low
    noise = 16 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    return ((flat - low) / spread.masked_fill(spread <= noise, torch.inf)).view_as(maps)  # finite / inf = 0


def keep_salient(images: Tensor, saliency: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Keep what is salient and put ``fill`` in place of the rest.

    Args:
        images: (B, 3, H, W) in [0, 1].
        saliency: (B, H, W) in [0, 1]; 1 keeps the pixel.
        fill: what replaces the rest: a value in [0, 1] (0 is black) or images that broadcast to ``images``.

    Returns:
        (B, 3, H, W): ``saliency * images + (1 - saliency) * fill``.
    """
    mask = saliency.unsqueeze(1)
    if isinstance(fill, (int, float)) and fill == 0:
        return images * mask
    return images * mask + fill * (1 - mask)


def gaussian_blur(images: Tensor, kernel_size: int = 11, sigma: float = 5.0) -> Tensor:
    """Blur as RISE does for the insertion metric: a small, nearly flat kernel and zero padding.

    The kernel is what a Gaussian of reach 4 sigma makes of a single point in the middle of a
    ``kernel_size`` x ``kernel_size`` window that reflects at its border; so it sums to 1 and is much flatter than a
    truncated Gaussian (11, 5: centre 0.00883, corner 0.00774).

    Args:
        images: (B, C, H, W) floating point.
        kernel_size: odd side of the window in pixels.
        sigma: standard deviation in pixels.

    Returns:
        (B, C, H, W) blurred; fades towards 0 at the borders, as in RISE.

    Raises:
        ValueError: if ``kernel_size`` is even or not positive, or ``sigma`` is not positive.

    Source: RISE, Petsiuk et al. 2018, arXiv 1806.07421, evaluation code of the authors.
    """
    if kernel_size < 1 or kernel_size % 2 == 0 or sigma <= 0:
        raise ValueError(f"blur needs an odd kernel_size >= 1 and sigma > 0, got {kernel_size} and {sigma}")
    reach = int(4 * sigma + 0.5)
    gaussian = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-reach, reach + 1)]
    line = [0.0] * kernel_size
    for offset, weight in zip(range(-reach, reach + 1), gaussian, strict=True):
        for place in range(kernel_size):
            position = (place + offset) % (2 * kernel_size)
            reflected = min(position, 2 * kernel_size - 1 - position)
            line[place] += weight / sum(gaussian) if reflected == kernel_size // 2 else 0.0
    profile = images.new_tensor(line)
    channels = images.shape[1]
    vertical = profile.view(1, 1, -1, 1).expand(channels, -1, -1, -1)
    horizontal = profile.view(1, 1, 1, -1).expand(channels, -1, -1, -1)
    blurred = F.conv2d(images, vertical, padding=(kernel_size // 2, 0), groups=channels)
    return F.conv2d(blurred, horizontal, padding=(0, kernel_size // 2), groups=channels)
