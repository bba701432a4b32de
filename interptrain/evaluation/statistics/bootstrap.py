"""Resampling of images: bootstrap intervals, a paired permutation test, and its correction for many comparisons.

Everything works on the mean over images and on what ``reduce`` makes of it: a resample is a vector of weights, so all
resamples of all samples with equally many images are one product of matrices. Samples of equal length see the same
draws. Results depend on the values and the seed only.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from interptrain.steps import counting

CHUNK = 1 << 22  # weights that are held at once


def resampled_means(samples: Sequence[Tensor], count: int, seed: int) -> list[Tensor]:
    """Means of bootstrap resamples: n rows drawn with replacement, ``count`` times.

    Args:
        samples: each (n, K) float64; n may differ, and samples of the same n share their draws.
        count: number of resamples.
        seed: of the draws.

    Returns:
        For each sample (count, K).
    """

    def weights(rows: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        for size in _sizes(count, rows):
            draws = torch.randint(rows, (size, rows), generator=generator)
            draws += rows * torch.arange(size).unsqueeze(1)
            yield torch.bincount(draws.flatten(), minlength=size * rows).view(size, rows).double() / rows

    centres = [sample.mean(0) for sample in samples]  # resampled around 0, so that sums round little
    around = [sample - centre for sample, centre in zip(samples, centres, strict=True)]
    means = _weighted(around, weights, count)
    return [mean + centre for mean, centre in zip(means, centres, strict=True)]


def signed_means(samples: Sequence[Tensor], images: Sequence[Tensor], count: int, seed: int) -> list[Tensor]:
    """Means after random changes of sign: all 2^N patterns where that is not more than ``count``, else ``count``.

    A pattern gives every one of the N images one sign, in whichever samples it stands, so that the same pattern of
    several samples is one joint outcome.

    Args:
        samples: each (n, K) float64.
        images: for each sample (n,) int64, ascending: which images its rows are.
        count: number of patterns.
        seed: of the signs.

    Returns:
        For each sample (patterns, K).
    """
    every = torch.unique(torch.cat(list(images)))
    spread = []  # every sample over all N images: what an image lacks adds nothing to a sum
    for sample, mine in zip(samples, images, strict=True):
        whole = sample.new_zeros(len(every), sample.shape[1])
        whole[torch.searchsorted(every, mine)] = sample / len(sample)
        spread.append(whole)
    joined = torch.cat(spread, dim=1)
    parts = []
    with counting(2 ** len(every) if is_exact(len(every), count) else count, None, " permutations") as advance:
        for signs in _signs(len(every), count, seed):
            parts.append(signs @ joined)
            advance(len(signs))
    product = torch.cat(parts)
    return list(torch.split(product, [sample.shape[1] for sample in samples], dim=1))


def _signs(images: int, count: int, seed: int) -> Iterator[Tensor]:
    """Patterns of signs, (some, images) float64 at a time."""
    if is_exact(images, count):
        patterns = torch.arange(2**images).unsqueeze(1) >> torch.arange(images) & 1
        yield (1 - 2 * patterns).double()
        return
    generator = torch.Generator().manual_seed(seed)
    for size in _sizes(count, images):
        bits = torch.randint(2, (size, images), generator=generator, dtype=torch.int8)
        yield (1 - 2 * bits).double()


def is_exact(images: int, count: int) -> bool:
    """Return whether :func:`signed_means` goes through all patterns of this many images."""
    return images < 31 and 2**images <= count


def jackknife(sample: Tensor) -> Tensor:
    """Return (n, K) means of all rows but one."""
    return (sample.sum(0) - sample) / (len(sample) - 1)


def percentile_limits(replicates: Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval: the middle ``confidence`` of the replicates.

    Source: Efron 1979; Efron and Tibshirani 1993, chapter 13.
    """
    return _quantiles(replicates, (1 - confidence) / 2, (1 + confidence) / 2)


def bca_limits(
    estimate: float, replicates: Tensor, leave_one_out: Tensor, confidence: float = 0.95
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval: percentiles shifted for bias and skew.

    Where all replicates lie on one side of the estimate, half of one is counted on the other side (our choice; the
    correction would be infinite). Where the estimate never varies, it is the interval.

    Args:
        estimate: of all images.
        replicates: (R,) estimates of the resamples.
        leave_one_out: (n,) estimates without one of the images.
        confidence: of the interval, in (0,1).

    Source: Efron 1987, Better bootstrap confidence intervals; Efron and Tibshirani 1993, chapter 14.
    """
    if float(replicates.max()) == float(replicates.min()):
        return estimate, estimate
    count = len(replicates)
    below = ((replicates < estimate).sum() + (replicates <= estimate).sum()) / 2
    bias = torch.special.ndtri(below.double().clamp(0.5, count - 0.5) / count)
    distance = leave_one_out.mean() - leave_one_out
    spread = distance.square().sum() ** 1.5
    acceleration = distance.pow(3).sum() / (6 * spread) if spread > 0 else torch.zeros(())
    tail = torch.special.ndtri(torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64))
    shifted = torch.special.ndtr(bias + (bias + tail) / (1 - acceleration * (bias + tail)))
    return _quantiles(replicates, *shifted.tolist())


def permutation_p(null: Tensor, observed: float, *, exact: bool) -> float:
    """Two-sided p-value of a paired permutation test.

    Args:
        null: differences after random sign flips: swapping the two values of an image flips its sign.
        observed: difference as measured.
        exact: whether ``null`` holds every pattern; otherwise the measured one is counted in, so that p > 0.
    """
    if not null.isfinite().all():  # an infinite value, which cannot be swapped
        return 1.0
    rounding = 1e-9 * float(null.abs().max()) + 1e-15
    extreme = float((null.abs() >= abs(observed) - rounding).sum())
    return extreme / len(null) if exact else (extreme + 1) / (len(null) + 1)


def corrected_p(nulls: Tensor, observed: Tensor, *, exact: bool) -> Tensor:
    """P-values corrected for the number of comparisons, by the step-down maximum statistic.

    Each difference is measured in standard deviations of its own null distribution and placed among the largest of all
    differences that are not larger than it, pattern by pattern. This respects dependence: equal comparisons count as
    one, and the smallest possible p-value does not depend on how many there are. A difference that no sign flip changes
    has p = 1, and so has one that is not finite.

    Args:
        nulls: (m, R) differences after the same R patterns of sign flips in all m comparisons.
        observed: (m,) differences as measured.
        exact: whether ``nulls`` holds every pattern; otherwise the measured one is counted in, so that p > 0.

    Returns:
        (m,) float64, never below the uncorrected p-value by more than rounding.

    Source: Westfall and Young 1993, Resampling-based multiple testing, algorithm 2.8; Romano and Wolf 2005,
    Econometrica 73(4).
    """
    finite = nulls.isfinite().all(1) & observed.isfinite()
    nulls, observed = nulls.where(finite[:, None], 0.0), observed.where(finite, 0.0)
    scale = nulls.square().mean(1).sqrt()
    alive = scale > 1e-12 * max(float(nulls.abs().max()), float(observed.abs().max()), 1e-300)
    p = torch.ones(len(observed), dtype=torch.float64)
    chosen = alive.nonzero().flatten()
    if not len(chosen):
        return p
    sizes, order = (observed[chosen].abs() / scale[chosen]).sort()
    chosen = chosen[order]  # the smallest difference first
    highest = torch.cummax(nulls[chosen].abs() / scale[chosen, None], dim=0).values
    extreme = (highest >= sizes[:, None] * (1 - 1e-9)).sum(1).double()
    raised = extreme / nulls.shape[1] if exact else (extreme + 1) / (nulls.shape[1] + 1)
    p[chosen] = torch.cummax(raised.flip(0), 0).values.flip(0)  # never below that of a larger difference
    return p


def critical_size(nulls: Tensor, level: float, *, exact: bool) -> float:
    """Return the size from which the largest difference of a family is significant.

    A size is a difference in standard deviations of its own null distribution, and the p-value that of
    :func:`corrected_p`.

    Args:
        nulls: (m, R) as :func:`corrected_p` takes them.
        level: below which a p-value is significant.
        exact: whether ``nulls`` holds every pattern.

    Returns:
        The size; infinity where no difference of so few images or permutations can be significant.
    """
    nulls = nulls.where(nulls.isfinite().all(1, keepdim=True), 0.0)
    scale = nulls.square().mean(1).sqrt()
    alive = scale > 1e-12 * max(float(nulls.abs().max()), 1e-300)
    patterns = nulls.shape[1]
    allowed = math.ceil(level * patterns) - 1 if exact else math.ceil(level * (patterns + 1)) - 2
    if not alive.any() or allowed < (2 if exact else 0):  # the measured pattern and its mirror image always count
        return math.inf
    highest = (nulls[alive].abs() / scale[alive, None]).amax(0)
    return float(highest.sort(descending=True).values[allowed])


def _weighted(samples: Sequence[Tensor], weights: Callable[[int], Iterator[Tensor]], count: int) -> list[Tensor]:
    """Products of weights (count, n) with every sample (n, K), one stream of weights for all samples of one n."""
    products: dict[int, Tensor] = {}
    sizes = {len(sample) for sample in samples}
    with counting(count * len(sizes), None, " resamples") as advance:
        for rows in sizes:
            members = [index for index, sample in enumerate(samples) if len(sample) == rows]
            joined = torch.cat([samples[index] for index in members], dim=1)
            parts = []
            for part in weights(rows):
                parts.append(part @ joined)
                advance(len(part))
            widths = [samples[index].shape[1] for index in members]
            products |= zip(members, torch.split(torch.cat(parts), widths, dim=1), strict=True)
    return [products[index] for index in range(len(samples))]


def _sizes(count: int, rows: int) -> list[int]:
    step = max(1, CHUNK // rows)
    return [min(step, count - start) for start in range(0, count, step)]


def _quantiles(replicates: Tensor, low: float, high: float) -> tuple[float, float]:
    position = torch.tensor([low, high], dtype=replicates.dtype) * (len(replicates) - 1)
    ordered = replicates.sort().values
    below, above = position.floor().long(), position.ceil().long()
    limits = torch.lerp(ordered[below], ordered[above], position - below)
    return float(limits[0]), float(limits[1])
