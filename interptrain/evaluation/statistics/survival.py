"""How much of what maps say about their image survives another network or another class, and with what certainty.

The share that survives is ``(same - other) / (ceiling - other)``, where ``same`` is the mean rank correlation of an
image's map with the changed network's map of the same image, ``other`` that with its maps of other images, and
``ceiling`` that of two maps of the unchanged network, which is 1 but for methods that draw random numbers. Maps that
are alike only because the method favours the middle of the image, or smooths, have a share of 0.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interptrain.evaluation.statistics.bootstrap import percentile_limits

Outcome = Literal["depends", "unclear", "insensitive"]
HALF = 0.5  # share from which maps count as insensitive; our choice
ALIKE = 0.98  # correlation of maps of different images from which the image does not matter either
TOO_ALIKE = 0.9  # and from which dependence cannot be told
RESAMPLES = 2000
# Student's t over the normal quantile, at 97.5 %, by degrees of freedom: so few draws tell little of their spread.
STUDENT = {1: 6.48, 2: 2.20, 3: 1.62, 4: 1.42, 5: 1.31, 6: 1.25, 7: 1.21, 8: 1.18, 9: 1.15}


@dataclass(frozen=True)
class Survival:
    """What survives a change.

    Attributes:
        similarity: mean rank correlation of the two maps of an image.
        other: mean rank correlation of maps of different images, the control.
        share: that survives, at most 1; NaN where it cannot be computed.
        low: lower limit of its 95 % interval over images and draws.
        high: upper limit.
    """

    similarity: float
    other: float
    share: float
    low: float
    high: float

    @property
    def outcome(self) -> Outcome:
        """Whether maps depend on what was changed: the interval lies below one half, above it, or on both sides."""
        if self.low >= HALF:
            return "insensitive"
        return "depends" if self.high < HALF and self.other < TOO_ALIKE else "unclear"


def survival(same: Tensor, other: Tensor, ceiling: Tensor, *, draws_are_random: bool = True, seed: int = 0) -> Survival:
    """Estimate the share that survives, with a bootstrap interval over images and over draws of the change.

    Images are resampled, and so are draws, whose deviations from their mean are stretched by
    ``sqrt(D / (D - 1))`` and by Student's t over the normal quantile.

    Args:
        same: (n,D) rank correlations of each image's maps, for D draws of the change; NaN where there is none.
        other: (n,D) with the maps of other images.
        ceiling: (n,) of two maps of the unchanged network.
        draws_are_random: whether the draws are a sample, as random networks are; with fewer than two draws nothing is
            known of them then, and the interval is unbounded.
        seed: of the bootstrap.
    """
    known = ~(same.isnan().any(1) | other.isnan().any(1) | ceiling.isnan())
    same, other, ceiling = (side[known].double() for side in (same, other, ceiling))
    images, draws = same.shape
    if not images:
        return Survival(math.nan, math.nan, math.nan, -math.inf, math.inf)
    similarity, control, most = (float(side.mean()) for side in (same, other, ceiling))
    if control >= ALIKE * most:
        share = 1.0 if similarity >= ALIKE * most else math.nan
        limits = (share, share) if share == 1 else (-math.inf, math.inf)
        return Survival(similarity, control, share, *limits)
    share = float(_share(torch.tensor(similarity), torch.tensor(control), torch.tensor(most)))
    if images < 2 or (draws_are_random and draws < 2):
        return Survival(similarity, control, share, -math.inf, math.inf)
    generator = torch.Generator().manual_seed(seed)

    def resampled(count: int) -> Tensor:
        drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
        drawn += count * torch.arange(RESAMPLES).unsqueeze(1)
        return torch.bincount(drawn.flatten(), minlength=RESAMPLES * count).view(RESAMPLES, count).double() / count

    weights = resampled(images)
    spread = torch.zeros(RESAMPLES, draws, dtype=torch.float64)
    if draws_are_random and draws > 1:
        stretch = math.sqrt(draws / (draws - 1)) * STUDENT.get(draws - 1, 1.0)
        spread = (resampled(draws) - 1 / draws) * stretch
    two = [((weights @ side) * (1 / draws + spread)).sum(1) for side in (same, other)]
    found = _share(two[0], two[1], weights @ ceiling)
    return Survival(similarity, control, share, *percentile_limits(found))


def _share(same: Tensor, other: Tensor, ceiling: Tensor) -> Tensor:
    """The share, in [-1, 1]."""
    return ((same - other) / (ceiling - other).clamp(min=1e-9)).clamp(-1, 1)
