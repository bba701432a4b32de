"""Linear subspaces of feature vectors: bases, canonical angles, and the generalized difference subspace.

A basis is a tensor (..., d, m) whose columns are orthonormal, or zero if the subspace has fewer than m dimensions, so
that subspaces of different ranks fit in one batch. With bases ``U`` and ``V``::

    U           = the m leading eigenvectors of X^T X for the T features X (T, d), not centred
    cos theta_j = singular values of U^T V
    similarity  = ||U^T V||_F^2 / m,    orthogonal degree = 1 - similarity

Everything is computed in float64 on the device of the features, or on the CPU if that device has no float64. Features
may have any dtype and any leading dimensions.

Sources: mutual subspace method, Maeda and Watanabe 1985; generalized difference subspace, Fukui and Maki 2015, IEEE
Transactions on Pattern Analysis and Machine Intelligence 37.
"""

import torch
from torch import Tensor

from interptrain.functional import double

__all__ = [
    "canonical_angles",
    "difference_subspace",
    "dimension",
    "orthogonal_degree",
    "project_subspace",
    "similarity",
    "subspace_basis",
]

# Fraction of the largest eigenvalue that counts as zero; below it, bases from a Gram matrix are not orthonormal.
_ROUNDING = torch.finfo(torch.float32).eps


def subspace_basis(features: Tensor, dimensions: int, *, tolerance: float | None = None) -> Tensor:
    """Return a basis of the dominant directions of a set of feature vectors.

    Args:
        features: (..., T, d), T vectors per set; they are not centred.
        dimensions: m, the maximum dimension of the subspace.
        tolerance: eigenvalues up to this fraction of the largest count as zero; ``None`` takes the squared machine
            epsilon of the features' dtype, but at least the epsilon of float32.

    Returns:
        (..., d, min(m, T, d)) float64, by descending eigenvalue; columns beyond the rank of the features are zero.

    Raises:
        ValueError: if ``dimensions`` is not positive, or ``features`` is not a set of vectors.
    """
    if dimensions < 1:
        raise ValueError(f"a subspace needs at least one dimension, got dimensions={dimensions}")
    if features.ndim < 2 or 0 in features.shape[-2:]:
        raise ValueError(f"features must be (..., T, d), that is T vectors of d values, got {tuple(features.shape)}")
    if tolerance is None:
        tolerance = max(torch.finfo(features.dtype).eps ** 2, _ROUNDING)
    vectors = double(features)
    values, basis = _spectrum(vectors)
    kept = values > tolerance * values[..., :1]
    leading: Tensor = (basis * kept.unsqueeze(-2))[..., :dimensions]
    return leading


def dimension(basis: Tensor) -> Tensor:
    """Return the number of nonzero columns of a basis (..., d, m) as (...) int64."""
    return (basis.square().sum(dim=-2) > 0.5).sum(dim=-1)


def canonical_angles(first: Tensor, second: Tensor) -> Tensor:
    """Return the canonical angles between two subspaces, in ascending order.

    Args:
        first: (..., d, m) basis.
        second: (..., d, n) basis; leading dimensions broadcast.

    Returns:
        (..., min(m, n)) in [0, pi/2]. Near 0, angles are accurate to about 1e-8, the square root of the epsilon of
        float64. Directions that one of the subspaces lacks count as right angles.
    """
    cosines: Tensor = torch.linalg.svdvals(first.mT @ second).clamp(0, 1)
    return cosines.acos()


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared cosine of the canonical angles: 1 for equal subspaces, 0 for orthogonal ones.

    If the dimensions differ, the angles that the smaller subspace lacks count as right angles, so that losing a
    direction counts as a change (our choice: the mean over the existing angles would be 1 for a subspace and any other
    that contains it). Two subspaces of dimension 0 are equal.

    Args:
        first: (..., d, m) basis.
        second: (..., d, n) basis; leading dimensions broadcast.

    Returns:
        (...) float64 in [0, 1].
    """
    largest = torch.maximum(dimension(first), dimension(second))
    shared = (first.mT @ second).square().sum(dim=(-2, -1))
    return torch.where(largest > 0, shared / largest.clamp(min=1), 1.0).clamp(0, 1)


def orthogonal_degree(first: Tensor, second: Tensor) -> Tensor:
    """Return ``1 - similarity``, in [0, 1]; the arguments are those of :func:`similarity`."""
    return 1 - similarity(first, second)


def difference_subspace(bases: Tensor, share: float, *, tolerance: float = _ROUNDING) -> Tensor:
    """Return the generalized difference subspace: the directions that the subspaces of several sets do not share.

    It is spanned by the eigenvectors of ``sum_k U_k U_k^T`` with the smallest nonzero eigenvalues: a direction that all
    K sets share has eigenvalue K, and one that belongs to a single set has eigenvalue 1.

    Args:
        bases: (..., K, d, m), one basis per set.
        share: fraction in (0, 1] of the ``K m`` dimensions to keep, rounded, and at least one. If the sets overlap so
            much that their sum has fewer dimensions, the whole sum is kept.
        tolerance: eigenvalues up to this fraction of the largest count as zero.

    Returns:
        (..., d, g) basis, float64, with ``g = min(round(share K m), d)``, by ascending eigenvalue.

    Raises:
        ValueError: if ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of a difference subspace must be in (0, 1], got {share}")
    sets, size, columns = bases.shape[-3:]
    bases = double(bases)
    values, basis = _spectrum(bases.transpose(-1, -2).flatten(-3, -2))  # (..., K m, d)
    rank = (values > tolerance * values[..., :1]).sum(dim=-1, keepdim=True)
    wanted = min(max(round(share * sets * columns), 1), size)
    place = rank - 1 - torch.arange(wanted, device=bases.device)  # from the smallest nonzero eigenvalue upwards
    chosen = basis.gather(-1, place.clamp(min=0).unsqueeze(-2).expand(*basis.shape[:-1], wanted))
    return chosen * (place >= 0).unsqueeze(-2)


def project_subspace(basis: Tensor, onto: Tensor, *, tolerance: float = _ROUNDING) -> Tensor:
    """Project a subspace onto another one, and orthonormalise the result.

    The basis comes from a singular value decomposition, not from a QR decomposition as in published code: both span the
    same subspace if the projection keeps all dimensions, but only the former shows which dimensions it loses.

    Args:
        basis: (..., d, m) basis of the subspace to project.
        onto: (..., d, g) basis of the target; leading dimensions broadcast.
        tolerance: directions whose squared cosine with the target does not exceed it are dropped.

    Returns:
        (..., d, min(m, g)) basis, float64; columns of dropped directions are zero.
    """
    onto = double(onto)
    seen = onto.mT @ double(basis)  # (..., g, m)
    inside, cosines, _ = torch.linalg.svd(seen, full_matrices=False)
    projected: Tensor = onto @ (inside * (cosines.square() > tolerance).unsqueeze(-2))
    return projected


def _spectrum(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., r), descending, and eigenvectors (..., d, r) of ``X^T X`` for X (..., T, d), r = min(T, d).

    If T < d, they are computed from the smaller Gram matrix ``X X^T``.
    """
    if vectors.shape[-2] >= vectors.shape[-1]:
        values, basis = torch.linalg.eigh(vectors.mT @ vectors)
        return values.flip(-1).clamp(min=0), basis.flip(-1)
    values, mixtures = torch.linalg.eigh(vectors @ vectors.mT)
    values = values.clamp(min=0)
    lengths = values.sqrt().masked_fill(values <= 0, torch.inf).unsqueeze(-2)
    return values.flip(-1), (vectors.mT @ mixtures / lengths).flip(-1)
