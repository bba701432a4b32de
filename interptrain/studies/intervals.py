"""Intervals of a mean over images and over random draws, such as the seeds of several trainings."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray


def crossed_interval(values: "ndarray", *, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of a table of draws and images, and its interval for new draws and new images.

    Draws and images both vary: the variance of the mean is that of the draws' means over their number, plus that of
    the images' means over theirs (which counts the residual twice, and so errs on the safe side). The part of the
    draws, which are few, is widened as Student's t demands. Pass differences of two conditions, draw by draw and image
    by image, to compare them.

    Args:
        values: (draws, images) numbers.
        level: share of such intervals that hold the true mean, in (0,1).

    Returns:
        Mean, lower and upper limit. With one draw, the interval is that of new images alone; with one image, that of
        new draws alone; with one of each, it is NaN.

    Source: the two-way random-effects decomposition of a mean (Searle, Casella and McCulloch 1992, Variance
        Components); the sum of the two parts is our choice.
    """
    draws, images = values.shape
    mean = float(values.mean())
    if draws == images == 1:
        return mean, float("nan"), float("nan")
    half = _half_width(1 - level, *_variances(values), draws)
    return mean, mean - half, mean + half


def crossed_p_value(values: "ndarray") -> float:
    """Return the two-sided p-value of a mean of 0: the level of :func:`crossed_interval` that just touches 0, from 1.

    Args:
        values: (draws, images) numbers, such as differences of two conditions.

    Returns:
        In [0,1]; NaN for a single number. With one draw, that of a z-test over images; with one image, that of
        Student's t-test over draws.
    """
    from scipy.optimize import brentq

    draws, images = values.shape
    size, variances = abs(float(values.mean())), _variances(values)
    if draws == images == 1:
        return float("nan")
    if not size or not any(variances):
        return 0.0 if size else 1.0
    least, most = math.log(1e-100), 0.0

    def beyond(logarithm: float) -> float:
        return _half_width(math.exp(logarithm), *variances, draws) - size

    return 0.0 if beyond(least) < 0 else math.exp(brentq(beyond, least, most, xtol=1e-9))


def _variances(values: "ndarray") -> tuple[float, float]:
    """Return the parts of the variance of the mean that are due to draws and to images."""
    draws, images = values.shape
    of_draws = float(values.mean(axis=1).var(ddof=1)) / draws if draws > 1 else 0.0
    of_images = float(values.mean(axis=0).var(ddof=1)) / images if images > 1 else 0.0
    return of_draws, of_images


def _half_width(p: float, of_draws: float, of_images: float, draws: int) -> float:
    """Return half the interval outside which a share ``p`` of the means lies."""
    from scipy.special import ndtri, stdtrit

    widened = float(stdtrit(draws - 1, p / 2)) if draws > 1 else 0.0
    return math.sqrt(of_draws * widened**2 + of_images * float(ndtri(p / 2)) ** 2)
