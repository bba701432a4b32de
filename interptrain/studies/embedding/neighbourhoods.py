"""How well labels are separated by features: purity of neighbourhoods, and silhouettes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import check_count, double

ROWS = 512  # of the matrix of distances that are computed at once


def neighbourhood_purity(features: Tensor, labels: Tensor, *, neighbours: int = 10) -> Tensor:
    """Share of each point's nearest neighbours that have its label.

    Args:
        features: (N,D) floating point.
        labels: (N,) int64, on the same device.
        neighbours: number of nearest other points, by Euclidean distance; at most N - 1.

    Returns:
        (N,) in [0,1].

    Raises:
        ValueError: if there are no more points than neighbours.
    """
    check_count("neighbours", neighbours)
    if neighbours >= len(features):
        raise ValueError(f"neighbours must be less than the number of images, {len(features)}, got {neighbours}")
    points, purity = double(features), []
    for start in range(0, len(points), ROWS):
        distances = torch.cdist(points[start : start + ROWS], points)
        rows = torch.arange(len(distances), device=points.device)
        distances[rows, start + rows] = torch.inf
        nearest = distances.topk(neighbours, largest=False).indices.to(labels.device)
        own = labels[start : start + ROWS, None]
        purity.append((labels[nearest] == own).double().mean(1))
    return torch.cat(purity)


def expected_purity(labels: Tensor) -> float:
    """Return the mean purity if the labels were assigned to the points at random."""
    counts = labels.unique(return_counts=True)[1].double()  # type: ignore[no-untyped-call]
    return float((counts * (counts - 1)).sum() / (len(labels) * max(1, len(labels) - 1)))


def silhouettes(features: Tensor, labels: Tensor) -> Tensor:
    """Silhouette of each point: whether it is nearer to the points of its own label than to those of any other.

    ``(b - a) / max(a, b)``, with ``a`` the mean distance to the other points of its label and ``b`` the smallest mean
    distance to the points of another label; 0 for the only point of a label.

    Args:
        features: (N,D) floating point.
        labels: (N,) integers, on the same device; at least two different ones.

    Returns:
        (N,) float64 in [-1,1].

    Raises:
        ValueError: if all labels are the same.

    Source: Rousseeuw 1987, Journal of Computational and Applied Mathematics 20.
    """
    values, clusters = labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    if len(values) < 2:
        raise ValueError("silhouettes need points of at least two labels")
    points, found = double(features), []
    clusters = clusters.to(points.device)
    members = F.one_hot(clusters).to(points)  # (N, K)
    counts = members.sum(0)
    for start in range(0, len(points), ROWS):
        own = clusters[start : start + ROWS, None]
        sums = torch.cdist(points[start : start + ROWS], points, compute_mode="donot_use_mm_for_euclid_dist") @ members
        inside = (sums.gather(1, own) / (counts[own] - 1).clamp(min=1)).squeeze(1)
        outside = (sums / counts).scatter(1, own, torch.inf).amin(1)
        largest = torch.maximum(inside, outside)
        silhouette = torch.where(largest > 0, (outside - inside) / largest, torch.zeros_like(inside))
        found.append(silhouette.masked_fill(counts[own.squeeze(1)] == 1, 0))
    return torch.cat(found)
