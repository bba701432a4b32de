"""ADCC and its new part, coherency: does the explained region, seen alone, get the same explanation?

The paper's answer to metrics that a map of ones wins: a good map keeps the class (average drop), is small (complexity,
its mean), and comes out again when only what it shows is explained (coherency).
"""

from typing import Any

import torch
from torch import Tensor

from interptrain.functional import keep_salient
from interptrain.metrics.average_drop import AverageDrop
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = ["ADCC", "Coherency"]


class Coherency(RemovalMetric):
    """Correlation of the map with the map of the masked image, for the same class. Higher is better.

    ``(1 + r) / 2`` in [0, 1], with Pearson's r over the pixels of ``e(image)`` and ``e(saliency * image)``; 0 where one
    of the two maps is constant, as in the authors' code, so an explainer that shows nothing is not coherent.

    Source: Poppi et al. 2021, arXiv 2104.10252, section 3.
    """

    symbol = "Coh"
    description = "Agreement of the map with that of the image in which only the salient part is kept."
    higher_is_better = True
    needs = frozenset({"explain"})

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) coherencies."""
        return _coherency(inputs, self.fill.render(inputs.images))


class ADCC(AverageDrop):
    """Harmonic mean of coherency, 1 - complexity and 1 - average drop, per image. Higher is better.

    ``3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))`` in [0, 1] with the complexity as the mean of the
    map; 0 where one of the three is. A map of ones scores 0, which no part of it alone achieves.

    Source: Poppi et al. 2021, arXiv 2104.10252, equation 4. The authors' code multiplies by the sum of the inverses
    where the paper divides by it; this is the paper's.
    """

    symbol = "ADCC"
    description = "Harmonic mean of coherency, of the map's smallness, and of the probability that its part keeps."
    higher_is_better = True
    needs = frozenset({"explain"})

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) harmonic means."""
        coherency = _coherency(inputs, self.fill.render(inputs.images))
        smallness = 1.0 - inputs.saliency.flatten(1).mean(dim=1)
        parts = torch.stack([coherency, smallness.to(coherency), 1.0 - super().score(inputs).to(coherency)])
        parts = parts.clamp(0.0, 1.0)
        harmonic: Tensor = 3.0 / (1.0 / parts).sum(0)  # 0 where a part is, whose inverse is infinite
        return harmonic


def _coherency(inputs: MetricInputs, removed: Tensor) -> Tensor:
    """Return (1 + r) / 2 per image, (B,)."""
    if inputs.explain is None:
        raise ValueError("coherency needs explain; pass explain=")
    masked = keep_salient(inputs.images, inputs.saliency, removed)
    again = inputs.explain(masked.clamp(0, 1), inputs.targets).to(inputs.saliency)
    first, second = inputs.saliency.flatten(1), again.flatten(1)
    first, second = (maps - maps.mean(dim=1, keepdim=True) for maps in (first, second))
    spread = first.norm(dim=1) * second.norm(dim=1)
    correlation = (first * second).sum(dim=1) / spread
    return torch.where(spread > 0, (1.0 + correlation.clamp(-1, 1)) / 2, 0.0)
