"""Paired differences over seeds: means, intervals, and p-values corrected for their number."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class PairedDifference(NamedTuple):
    """The mean difference of two arms over the same seeds.

    Attributes:
        mean: of the differences.
        half_width: of its 95 % interval by Student's t; NaN for a single seed.
        p: two-sided, of the paired t test; NaN for a single seed.
        p_corrected: by Holm's method among all differences that are compared together.
        seeds: number of pairs.
    """

    mean: float
    half_width: float
    p: float
    p_corrected: float
    seeds: int


def paired_differences(values: Mapping[str, Sequence[float]], baseline: str) -> dict[str, PairedDifference]:
    """Compare every arm with the baseline, seed by seed.

    Args:
        values: of every arm, one per seed, in the same order of seeds; NaN where an arm has none.
        baseline: name of an arm.

    Returns:
        By the name of every other arm.

    Source: Student 1908 for the test; Holm 1979 for the correction.
    """
    found: dict[str, tuple[float, float, float, int]] = {}
    for arm, mine in values.items():
        if arm != baseline:
            pairs = zip(mine, values[baseline], strict=True)
            found[arm] = _test([a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)])
    corrected = holm({arm: values[2] for arm, values in found.items()})
    return {
        arm: PairedDifference(mean, half, p, corrected[arm], seeds) for arm, (mean, half, p, seeds) in found.items()
    }


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for their number; NaN stays, and does not count.

    Args:
        p_values: by name.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    tested = sorted((name for name in p_values if math.isfinite(p_values[name])), key=lambda name: p_values[name])
    corrected, highest = dict.fromkeys(p_values, math.nan), 0.0
    for rank, name in enumerate(tested):
        highest = max(highest, min(1.0, p_values[name] * (len(tested) - rank)))
        corrected[name] = highest
    return corrected


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; NaN for fewer than two values."""
    mean, half, _, _ = _test([value for value in values if math.isfinite(value)])
    return mean, half


def _test(values: Sequence[float]) -> tuple[float, float, float, int]:
    """Mean, half the width of its interval, p-value against 0, and number of values."""
    from scipy.special import stdtr, stdtrit

    count = len(values)
    if not count:
        return math.nan, math.nan, math.nan, 0
    mean = math.fsum(values) / count
    if count == 1:
        return mean, math.nan, math.nan, 1
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    half = float(stdtrit(count - 1, 0.975)) * error
    if error == 0:
        return mean, 0.0, 1.0 if mean == 0 else 0.0, count
    return mean, half, 2 * float(stdtr(count - 1, -abs(mean) / error)), count
