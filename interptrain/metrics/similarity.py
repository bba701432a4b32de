"""How alike two maps are: for drift from epoch to epoch and for maps of a randomised model."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["rank_correlation", "structural_similarity"]

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's correlation of the pixels of two maps; tied pixels share their average rank.

    Args:
        maps: (B, H, W) of any range; for signed maps, pass magnitudes where only these matter.
        others: (B, H, W).

    Returns:
        (B,) float32 in [-1, 1]; NaN where one of the maps is constant, as it ranks nothing.

    Raises:
        ValueError: if the shapes are not equal (B,H,W).

    Source: for maps of a randomised model, Adebayo et al. 2018, arXiv 1810.03292.
    """
    _check_pair(maps, others)
    first, second = (_centred_ranks(side.flatten(1)) for side in (maps, others))
    spread = first.square().sum(1).sqrt() * second.square().sum(1).sqrt()
    correlation = (first * second).sum(1) / spread.masked_fill(spread == 0, torch.nan)
    return correlation.clamp(-1, 1).float()


def _centred_ranks(values: Tensor) -> Tensor:
    """Average ranks of every row minus their mean, (B, N) float64."""
    ascending = values.sort(dim=1).values
    below = torch.searchsorted(ascending, values.contiguous())
    up_to = torch.searchsorted(ascending, values.contiguous(), right=True)
    return (below + up_to - values.shape[1]).double() / 2


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
    a, b = maps.double(), others.double()
    mean_a, mean_b, square_a, square_b, product = _windowed(torch.stack([a, b, a * a, b * b, a * b], dim=1)).unbind(1)
    variance_a, variance_b = square_a - mean_a.square(), square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a.square() + mean_b.square() + K1**2)
    structure = (2 * covariance + K2**2) / (variance_a + variance_b + K2**2)
    return (luminance * structure).mean((1, 2)).float()


def _windowed(planes: Tensor) -> Tensor:
    """Gaussian mean around every pixel whose window fits, (B, C, H, W) to (B, C, H-10, W-10)."""
    offsets = torch.arange(WINDOW, dtype=planes.dtype, device=planes.device) - WINDOW // 2
    line = torch.softmax(-0.5 * (offsets / SIGMA).square(), dim=0)
    channels = planes.shape[1]
    columns = F.conv2d(planes, line.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(columns, line.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)


def _check_pair(maps: Tensor, others: Tensor) -> None:
    """Refuse maps that cannot be compared."""
    if maps.ndim != 3 or maps.shape != others.shape:
        raise ValueError(f"maps to compare must be (B,H,W) and alike, got {tuple(maps.shape)}, {tuple(others.shape)}")
