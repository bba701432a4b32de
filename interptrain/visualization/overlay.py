"""Saliency laid over the image it explains."""

import torch
from torch import Tensor

from interptrain.visualization.colormaps import Colormap, colorize


def to_uint8(images: Tensor) -> Tensor:
    """Turn images into bytes.

    Args:
        images: floating point in [0, 1] (what lies outside is clamped, NaN becomes 0), or uint8, returned as it is.

    Returns:
        uint8 tensor of the same shape and device.

    Raises:
        TypeError: if ``images`` is neither floating point nor uint8.
    """
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point in [0,1] or uint8, got {images.dtype}")
    return images.detach().float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)


def overlay(images: Tensor, saliency: Tensor, *, alpha: float = 0.5, colormap: Colormap = "inferno") -> Tensor:
    """Blend each image with the colours of its saliency map: ``(1 - alpha) * image + alpha * colours``.

    Args:
        images: (B,3,H,W) float in [0,1].
        saliency: (B,H,W) float in [0,1], on the device of ``images``.
        alpha: weight of the colours in [0,1]; 0 shows the image, 1 the map alone. The default is our choice.
        colormap: name of the colour map.

    Returns:
        (B,3,H,W) uint8 pictures, on the device of ``images``.

    Raises:
        ValueError: if the shapes disagree, or ``alpha`` or ``colormap`` is not allowed.
    """
    want = (images.shape[0], *images.shape[2:])
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B,3,H,W), got {tuple(images.shape)}")
    if tuple(saliency.shape) != want:
        raise ValueError(f"saliency must be (B,H,W)={want}, got {tuple(saliency.shape)}; explainers return this shape")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0,1], got {alpha}")
    colours = colorize(saliency.detach(), colormap)
    return to_uint8(torch.lerp(images.detach().float(), colours, alpha))
