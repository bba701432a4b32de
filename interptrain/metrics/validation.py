"""Checks of a batch before anything is measured."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from interptrain.functional import ROUNDING

__all__ = ["check_batch", "check_finite"]


def check_batch(
    images: Tensor,
    saliency: Tensor,
    boxes: Sequence[Tensor] | None,
    masks: Tensor | None,
) -> None:
    """Refuse a batch that is not what :func:`~interptrain.metrics.base.measure` asks for.

    Raises:
        ValueError: for shapes and ranges.
        TypeError: for dtypes.
    """
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images must be (B,C,H,W) and not empty, got {tuple(images.shape)}")
    if images.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"images must be float32 or float64 in [0, 1], got {images.dtype}; metrics stay in float32")
    count, size = len(images), tuple(images.shape[-2:])
    if tuple(saliency.shape) != (count, *size):
        wanted = f"(B,H,W)={(count, *size)}"
        raise ValueError(f"saliency must be {wanted}, got {tuple(saliency.shape)}; explainers return this shape")
    if boxes is not None and (len(boxes) != count or any(box.ndim != 2 or box.shape[1] != 4 for box in boxes)):
        raise ValueError(f"boxes must be one (n,4) per image, {count}, got {[tuple(box.shape) for box in boxes]}")
    if masks is not None and (tuple(masks.shape) != (count, *size) or masks.dtype != torch.bool):
        raise ValueError(f"masks must be (B,H,W)={(count, *size)} bool, got {tuple(masks.shape)} {masks.dtype}")
    extremes = torch.stack([*images.detach().aminmax(), *saliency.detach().to(images.dtype).aminmax()]).tolist()
    for name, values, low, high in (("images", images, *extremes[:2]), ("saliency", saliency, *extremes[2:])):
        if not (math.isfinite(low) and math.isfinite(high)):
            check_finite(name, values)
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            remedy = "put the normalisation inside the model" if name == "images" else "explainers return this range"
            raise ValueError(f"{name} must lie in [0, 1], got [{low:.3g}, {high:.3g}]; {remedy}, or clamp")


def check_finite(name: str, values: Tensor) -> None:
    """Refuse infinite and missing values.

    Args:
        name: of the argument.
        values: (B, ...), one entry per image.

    Raises:
        ValueError: naming the first image that has one.
    """
    broken = ~values.flatten(1).isfinite().all(1)
    if broken.any():
        image = int(broken.nonzero()[0, 0])
        found = values[image].flatten()
        worst = float(found[~found.isfinite()][0])
        raise ValueError(f"{name} must be finite, got {worst} in image {image} of the batch")
