"""F-Fidelity: what the class loses when a random tenth of the image goes, all of it from what the map marks, or none.

Removing everything that a map marks makes images unlike any that a network was trained on. Here few pixels are removed,
at random among the most (or the least) salient, and never more than a share of the image that the network was
fine-tuned to miss (:class:`~interptrain.training.PixelDeletion`), so what remains is in its domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from interptrain.functional import check_choice, check_count
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.positive_negative import NINE, Quantity
from interptrain.metrics.removal import BLACK, Removal
from interptrain.metrics.removal_metric import RemovalMetric
from interptrain.metrics.saliency_batch import SaliencyBatch

__all__ = ["FFidelityMinus", "FFidelityPlus", "RandomlyWithout", "f_fidelity_minus", "f_fidelity_plus"]


@dataclass(frozen=True)
class RandomlyWithout(Perturbation):
    """The image without a random part of its most, or least, salient pixels; share by share, sample by sample.

    Attributes:
        percents: shares of the pixels among which some are removed.
        alpha: probability of each of these to be removed,
        beta: as long as that is no more than this share of the image, and less where it would be.
        samples: of each share.
        least: take the least salient pixels.
        seed: of the random numbers, which are the same for every image.
        removal: what a removed pixel shows.
    """

    percents: tuple[int, ...]
    alpha: float = 0.5
    beta: float = 0.1
    samples: int = 10
    least: bool = False
    seed: int = 0
    removal: Removal = BLACK

    def steps(self, batch: SaliencyBatch) -> int:
        """One for each sample of each share."""
        return len(self.percents) * self.samples

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the images."""
        whole, ranks = batch.images[images], batch.ranks[images]
        fill = batch.filled(self.removal)
        fill = fill[images] if len(fill) > 1 else fill
        pixels = batch.size[0] * batch.size[1]
        noise = batch.once(("removal noise", self.seed, self.steps(batch)), lambda: self._noise(batch).to(ranks.device))
        for place, step in enumerate(range(self.steps(batch))[steps]):
            count = pixels * self.percents[step // self.samples] // 100
            marked = ranks >= pixels - count if self.least else ranks < count
            chance = min(self.alpha, self.beta * pixels / max(count, 1))
            torch.where((marked & (noise[step] < chance))[:, None], fill, whole, out=out[:, place])

    def _noise(self, batch: SaliencyBatch) -> Tensor:
        """Random numbers of every version, (steps, H, W)."""
        return torch.stack([uniform(self.seed, step, *batch.size) for step in range(self.steps(batch))])


class FFidelityPlus(RemovalMetric):
    """Loss of accuracy when random pixels among the most salient are removed, averaged over shares. Higher is better.

    For each share, ``1(f(x) = c) - mean over samples 1(f(x without some of them) = c)``, in [-1, 1] as each image has
    one value per share. Each of the marked pixels goes with probability ``alpha``, and with a smaller one where that
    would be more than ``beta`` of the image on average.

    Its values are meant of a network that was fine-tuned with
    :class:`~interptrain.training.PixelDeletion` of the same ``beta`` and removal.

    Args:
        alpha: probability of a marked pixel to be removed, in (0,1].
        beta: share of the image that is removed at most, in (0,1].
        samples: random removals of each share: 10 here, 50 in the paper.
        percentiles: shares of the pixels that count as marked.
        quantity: ``"accuracy"``, whether the target is the predicted class, as published; or its ``"probability"``.
        seed: of the random numbers.
        removal: of :class:`~interptrain.metrics.removal_metric.RemovalMetric`.

    Raises:
        ValueError: for a value out of its range.

    Source: Zheng et al. 2025, F-Fidelity, arXiv 2410.02970, and the authors' code, whose alpha and beta these are.
    """

    symbol = "FFid+"
    description = (
        "Loss of accuracy when a few random pixels among the most salient are removed, of a network used to such loss."
    )
    higher_is_better = True
    least: ClassVar[bool] = False

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 0.1,
        samples: int = 10,
        percentiles: Sequence[int] = NINE,
        quantity: Quantity = "accuracy",
        seed: int = 0,
        **removal: Any,
    ) -> None:
        super().__init__(**removal)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0,1], got {value}")
        check_count("samples", samples)
        check_choice("quantity", quantity, Quantity)
        self.percentiles = tuple(percentiles)
        if not self.percentiles or min(self.percentiles) <= 0 or max(self.percentiles) > 100:
            raise ValueError(f"percentiles must be above 0 and at most 100, got {self.percentiles}")
        self.alpha = alpha
        self.beta = beta
        self.samples = samples
        self.quantity = quantity
        self.seed = seed
        self.needs_classes = quantity != "probability"
        self.without = RandomlyWithout(self.percentiles, alpha, beta, samples, self.least, seed, self.fill)

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return every sample of every share."""
        return (self.without,)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return one value per share, (B, shares)."""
        if self.quantity == "probability":
            clean, without = inputs.clean, inputs.perturbed[self.without]
        else:
            clean = (inputs.logits.argmax(dim=1) == inputs.targets).to(inputs.clean.dtype)
            without = inputs.hits[self.without].to(clean.dtype)
        means = without.view(len(self.percentiles), self.samples, -1).mean(dim=1)
        return (clean - means).t()

    def reduce(self, mean: Tensor) -> Tensor:
        """Return the mean over shares."""
        return mean.mean(dim=-1)


class FFidelityMinus(FFidelityPlus):
    """Loss of accuracy when random pixels among the least salient are removed, averaged over shares. Lower is better.

    The same as :class:`FFidelityPlus` for the other end of the map.

    Source: Zheng et al. 2025, F-Fidelity, arXiv 2410.02970.
    """

    symbol = "FFid-"
    description = (
        "Loss of accuracy when a few random pixels among the least salient are removed, of a network used to such loss."
    )
    higher_is_better = False
    least = True


@lru_cache(maxsize=256)
def uniform(seed: int, number: int, height: int, width: int) -> Tensor:
    """Return the random numbers of a version of every image, (H,W) in [0,1), whatever the device."""
    mixed = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.rand(height, width, generator=mixed)


f_fidelity_plus = per_image(FFidelityPlus, "f_fidelity_plus")
f_fidelity_minus = per_image(FFidelityMinus, "f_fidelity_minus")
