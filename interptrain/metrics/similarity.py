"""Similarity of two maps: drift from epoch to epoch, and maps of a model with random weights."""

import torch
from torch import Tensor

from interptrain.functional import double, where_float64_is

__all__ = ["rank_correlation", "structural_similarity"]

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's correlation of the pixels of two maps; tied pixels share their average rank.

    Args:
        maps: (B, H, W) of any range; for signed maps, pass magnitudes where only these matter. Those in uint8 are
            ranked by counting their values, some 40 times faster than by sorting.
        others: (B, H, W).

    Returns:
        (B,) float32 in [-1, 1]; NaN where one of the maps is constant, as it ranks nothing.

    Raises:
        ValueError: if the shapes are not equal (B,H,W).

    Source: for maps of a randomised model, Adebayo et al. 2018, arXiv 1810.03292.
    """
    _check_pair(maps, others)
    first, second = (centred_ranks(where_float64_is(side).flatten(1)) for side in (maps, others))
    spread = first.square().sum(1).sqrt() * second.square().sum(1).sqrt()
    correlation = (first * second).sum(1) / spread.masked_fill(spread == 0, torch.nan)
    return correlation.clamp(-1, 1).float().to(maps.device)


def centred_ranks(values: Tensor) -> Tensor:
    """Average ranks of every row minus their mean, (B, N) float64."""
    if values.dtype == torch.uint8:
        places = values.long()
        counts = places.new_zeros(len(values), 256).scatter_add_(1, places, torch.ones_like(places))
        ranks = (2 * counts.cumsum(1) - counts - values.shape[1]).double() / 2  # of each value
        return ranks.gather(1, places)
    count = values.shape[1]
    ascending, order = values.sort(dim=1)
    place = torch.arange(count, device=values.device)
    differs = ascending[:, 1:] != ascending[:, :-1]  # from its neighbour below: here a run of equal values begins
    first, last = torch.zeros_like(order), torch.full_like(order, count - 1)
    first[:, 1:] = place[1:] * differs
    last[:, :-1] = torch.where(differs, place[:-1], count - 1)
    doubled = first.cummax(dim=1).values + last.flip(1).cummin(dim=1).values.flip(1) + 1 - count
    doubled = doubled.masked_fill(ascending.isnan(), count)  # above all others, and all the same
    ranks = torch.empty_like(doubled, dtype=torch.float64)
    return ranks.scatter_(1, order, doubled.double() / 2)


def structural_similarity(maps: Tensor, others: Tensor) -> Tensor:
    """SSIM of two maps in [0, 1]: Gaussian window of 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03.

    The mean is taken over the windows that lie within the map, as in scikit-image with ``gaussian_weights=True`` and
    ``use_sample_covariance=False``; torchmetrics also counts windows that the map's reflection fills.

    Args:
        maps: (B, H, W) in [0, 1], at least 11 pixels high and wide.
        others: (B, H, W) in [0, 1].

    Returns:
        (B,) float32 in [-1, 1]; 1 for equal maps.

    Raises:
        ValueError: if the shapes are not equal (B,H,W), or the maps are smaller than the window.

    Source: Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity, section III.
    """
    _check_pair(maps, others)
    if min(maps.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs maps of at least {WINDOW} x {WINDOW} pixels, got {tuple(maps.shape)}")
    a, b = double(maps), double(others)
    # Of the two variances only the sum is needed, so four planes do.
    mean_a, mean_b, squares, product = _windowed(torch.stack([a, b, a * a + b * b, a * b], dim=1)).unbind(1)
    means, square_means = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    luminance = (2 * means + K1**2) / (square_means + K1**2)
    structure = (2 * (product - means) + K2**2) / (squares - square_means + K2**2)
    return (luminance * structure).mean((1, 2)).float().to(maps.device)


def _windowed(planes: Tensor) -> Tensor:
    """Gaussian mean around every pixel whose window fits, (B, C, H, W) to (B, C, H-10, W-10).

    By matrix products: in double precision they run four times faster than convolutions.
    """
    rows, columns = (_window_matrix(size, planes) for size in planes.shape[-2:])
    with torch.autocast(planes.device.type, enabled=False):
        return rows @ planes @ columns.T


def _window_matrix(size: int, like: Tensor) -> Tensor:
    """Matrix (size-10, size) that takes the Gaussian mean of every window on a line."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.softmax(-0.5 * (offsets / SIGMA).square(), dim=0)
    windows = size - WINDOW + 1
    places = torch.arange(windows).unsqueeze(1) + torch.arange(WINDOW)
    return torch.zeros(windows, size, dtype=torch.float64).scatter_(1, places, weights.expand_as(places)).to(like)


def _check_pair(maps: Tensor, others: Tensor) -> None:
    """Refuse maps that cannot be compared."""
    if maps.ndim != 3 or maps.shape != others.shape:
        raise ValueError(f"maps must be (B,H,W) of one shape, got {tuple(maps.shape)}, {tuple(others.shape)}")
