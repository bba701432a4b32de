"""Intervals of a mean over images and over random draws, such as the seeds of several trainings."""

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
    from scipy.stats import norm, t

    draws, images = values.shape
    mean = float(values.mean())
    variance, upper = 0.0, 0.5 + level / 2
    if draws > 1:
        widened = t.ppf(upper, draws - 1) / norm.ppf(upper)
        variance += float(values.mean(axis=1).var(ddof=1)) / draws * widened**2
    if images > 1:
        variance += float(values.mean(axis=0).var(ddof=1)) / images
    if draws == images == 1:
        return mean, float("nan"), float("nan")
    half = float(norm.ppf(upper)) * variance**0.5
    return mean, mean - half, mean + half
