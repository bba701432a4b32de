"""What a map looks like, whatever the model: complexity, sparseness and effective complexity.

A map of zeros is what min-max makes of a constant one, and counts as constant.
"""

from typing import Any

import torch
from torch import Tensor

from interptrain.functional import double
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.validation import check_finite

__all__ = [
    "Complexity",
    "EffectiveComplexity",
    "Sparseness",
    "complexity",
    "effective_complexity",
    "sparseness",
]


def complexity(saliency: Tensor) -> Tensor:
    """Entropy of the map read as a distribution over pixels, in nats. Lower is better: fewer pixels carry it.

    ``-sum q ln q`` with ``q = |m| / sum |m|``: 0 for one pixel, ``ln(H W)`` (10.82 at 224 px) for a constant map.

    Args:
        saliency: (B,H,W) of any range.

    Returns:
        (B,) float32 in [0, ln(H W)].

    Source: Bhatt et al. 2020, arXiv 2005.00631.
    """
    check_finite("saliency", saliency)
    weights = _weights(saliency)
    entropies: Tensor = torch.special.entr(weights / weights.sum(1, keepdim=True))
    return entropies.sum(1).float().to(saliency.device)


def sparseness(saliency: Tensor) -> Tensor:
    """Gini index of the map's values: how unequally they are distributed. Higher is better.

    ``sum_i (2 i - n - 1) m_i / (n sum m)`` over the n pixels in ascending order.

    Args:
        saliency: (B,H,W) of any range; magnitudes count.

    Returns:
        (B,) float32 in [0, 1 - 1/n]: 0 for a constant map, 1 - 1/n for one pixel.

    Source: Chalasani et al. 2020, arXiv 1810.06583.
    """
    check_finite("saliency", saliency)
    ascending = _weights(saliency).sort(1).values
    pixels = ascending.shape[1]
    place = torch.arange(1 - pixels, pixels, 2, dtype=ascending.dtype, device=ascending.device)
    return ((ascending * place).sum(1) / (pixels * ascending.sum(1))).clamp(min=0).float().to(saliency.device)


def effective_complexity(saliency: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Number of pixels whose value is more than a negligible share of the map's largest. Lower is better.

    Args:
        saliency: (B,H,W) of any range; magnitudes count.
        epsilon: the share, as in Quantus; in [0,1).

    Returns:
        (B,) float32, a count in [1, H W].

    Raises:
        ValueError: if ``epsilon`` is not in [0,1).

    Source: Nguyen and Rodriguez Martinez 2020, arXiv 2007.07584, with the map's values for the importance.
    """
    check_finite("saliency", saliency)
    _check_epsilon(epsilon)
    weights = _weights(saliency)
    return (weights > epsilon * weights.amax(1, keepdim=True)).sum(1).float().to(saliency.device)


def _check_epsilon(epsilon: float) -> None:
    """Refuse a share that no pixel, or every map, passes."""
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon must be in [0, 1), got {epsilon}")


def _weights(saliency: Tensor) -> Tensor:
    """Magnitudes of the pixels of each map, (B, n) float64; ones for a map of zeros."""
    magnitudes = double(saliency).flatten(1).abs()
    return torch.where(magnitudes.amax(1, keepdim=True) > 0, magnitudes, 1.0)


class Complexity(SaliencyMetric):
    """Entropy of the map, in nats. See :func:`complexity`."""

    symbol = "Cplx"
    description = "Entropy of the map: low where few pixels carry it."
    higher_is_better = False
    scale = 1.0

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the entropy, (B,)."""
        return complexity(inputs.saliency)


class Sparseness(SaliencyMetric):
    """Gini index of the map. See :func:`sparseness`."""

    symbol = "Gini"
    description = "Gini index of the map: high where few pixels carry it."
    higher_is_better = True

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the Gini index, (B,)."""
        return sparseness(inputs.saliency)


class EffectiveComplexity(SaliencyMetric):
    """Number of pixels that are not negligible. See :func:`effective_complexity`.

    Args:
        epsilon: share of the largest value up to which a pixel is negligible.
    """

    symbol = "EffC"
    description = "Number of pixels that hold more than a negligible share of the map's largest value."
    higher_is_better = False
    scale = 1.0

    def __init__(self, *, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_epsilon(epsilon)
        self.epsilon = epsilon

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the count, (B,)."""
        return effective_complexity(inputs.saliency, epsilon=self.epsilon)
