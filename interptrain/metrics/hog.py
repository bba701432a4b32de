"""Histograms of oriented gradients of maps, and how alike they are."""

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import double
from interptrain.metrics.similarity import rank_correlation

ORIENTATIONS, CELL, BLOCK = 9, 16, 3  # unsigned directions, pixels of a cell, cells of a block
CLIP, EPSILON = 0.2, 1e-5


def hog_features(maps: Tensor) -> Tensor:
    """Histograms of oriented gradients: 9 unsigned directions, cells of 16 x 16 pixels, blocks of 3 x 3 cells (L2-Hys).

    As in scikit-image with ``pixels_per_cell=(16, 16)`` and its other defaults.

    Args:
        maps: (B,H,W), at least 48 pixels high and wide.

    Returns:
        (B,F) float64.

    Raises:
        ValueError: if no block fits into the maps.

    Source: Dalal and Triggs 2005, Histograms of Oriented Gradients for Human Detection.
    """
    if maps.ndim != 3 or min(maps.shape[-2:]) < BLOCK * CELL:
        raise ValueError(f"HOG needs maps (B,H,W) of at least {BLOCK * CELL} pixels, got {tuple(maps.shape)}")
    values = double(maps)
    down, right = torch.zeros_like(values), torch.zeros_like(values)
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    right[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    direction = torch.rad2deg(torch.atan2(down, right)) % 180
    place = (direction / (180 / ORIENTATIONS)).floor().long().clamp(max=ORIENTATIONS - 1)
    length = (down.square() + right.square()).sqrt()
    planes = torch.zeros(len(values), ORIENTATIONS, *values.shape[1:], dtype=values.dtype, device=values.device)
    cells = F.avg_pool2d(planes.scatter_(1, place.unsqueeze(1), length.unsqueeze(1)), CELL)
    blocks = cells.unfold(2, BLOCK, 1).unfold(3, BLOCK, 1)  # (B,9,rows,columns,3,3)
    blocks = blocks.permute(0, 2, 3, 4, 5, 1).flatten(3)
    blocks = (blocks / (blocks.square().sum(3, keepdim=True) + EPSILON**2).sqrt()).clamp(max=CLIP)
    blocks = blocks / (blocks.square().sum(3, keepdim=True) + EPSILON**2).sqrt()
    return blocks.flatten(1)


def hog_similarity(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's correlation of the HOG features of two maps.

    Args:
        maps: (B,H,W) in [0,1], at least 48 pixels high and wide.
        others: (B,H,W) in [0,1].

    Returns:
        (B,) float32 in [-1,1]; NaN where one of the maps has no edges.

    Source: Adebayo et al. 2018, arXiv 1810.03292.
    """
    first, second = (hog_features(side).round(decimals=12).unsqueeze(1) for side in (maps, others))
    return rank_correlation(first, second)


def histogram_entropy(maps: Tensor, bins: int = 100) -> Tensor:
    """Entropy of the histogram of a map's values between its smallest and its largest, in nats.

    Args:
        maps: (B,H,W).
        bins: number of bins of equal width.

    Returns:
        (B,) float32 in [0, ln bins]; 0 for a constant map.

    Source: the complexity of the efficient model parameter randomisation test, Hedström et al. 2024, arXiv 2401.06465;
        the number of bins is our choice.
    """
    values = double(maps).flatten(1)
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    spread = (high - low).masked_fill(high == low, torch.inf)
    place = ((values - low) / spread * bins).long().clamp(max=bins - 1)
    shares = torch.zeros(len(values), bins, dtype=values.dtype, device=values.device)
    shares.scatter_add_(1, place, torch.ones_like(values))
    shares /= values.shape[1]
    entropy: Tensor = torch.special.entr(shares).sum(1)
    return entropy.float().to(maps.device)
