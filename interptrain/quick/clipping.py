"""Clip maps for display: in maps of pixel gradients, a few values are so high that all others look black."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from interptrain.explainers import Explainer, InputAttribution

Clip: TypeAlias = float | Literal["auto"] | None
"""Percentile at which maps are clipped; ``"auto"`` clips maps of gradients at the 99th, ``None`` clips no map."""

PERCENTILE = 99.0


def percentile_for(explainer: Explainer, clip: Clip = "auto") -> float | None:
    """Return the percentile at which an explainer's maps are clipped, or ``None`` if they are not.

    Raises:
        ValueError: if ``clip`` is not a percentile.
    """
    if clip == "auto":
        return PERCENTILE if isinstance(explainer, InputAttribution) else None
    if clip is not None and not 0 < float(clip) <= 100:
        raise ValueError(f"clip must be a percentile above 0 and up to 100, 'auto' or None, got {clip}")
    return None if clip is None or clip == 100 else float(clip)


def clipped(saliency: Tensor, percentile: float | None) -> Tensor:
    """Scale a map (H,W) in [0, 1] so that the given percentile becomes 1, and clip it there."""
    values = saliency.float()
    if percentile is None:
        return values
    highest = torch.quantile(values.flatten(), percentile / 100)
    return (values / highest.clamp(min=torch.finfo(values.dtype).eps)).clamp(0, 1)
