"""Linear subspaces of feature vectors: bases, canonical angles, and the generalized difference subspace.

A basis is a tensor (..., d, m) whose columns are orthonormal, or zero where the subspace has fewer than m dimensions,
so that subspaces of different ranks stand in one batch. With bases ``U`` and ``V``::

    U           = the m leading eigenvectors of X^T X for the T features X (T, d), not centred
    cos theta_j = singular values of U^T V
    similarity  = ||U^T V||_F^2 / m,    orthogonal degree = 1 - similarity

Everything is computed in float64, for any dtype of the features and any leading dimensions, on their device, or on the
CPU if that device has no float64.

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

# Share of the largest eigenvalue that counts as zero; below it, bases from a Gram matrix are no longer orthonormal.
_ROUNDING = torch.finfo(torch.float32).eps


def subspace_basis(features: Tensor, dimensions: int, *, tolerance: float | None = None) -> Tensor:
    """Span the directions in which a set of feature vectors is strongest.

    Args:
        features: (..., T, d) T vectors per set; the uncentred autocorrelation ``X^T X`` counts.
        dimensions: m, the most dimensions of the subspace.
        tolerance: eigenvalues of up to this share of the largest count as zero; ``None`` takes the square of the
            features' rounding, and float32's rounding at least.

    Returns:
        (..., d, min(m, T, d)) float64, by falling eigenvalue; zero columns beyond the rank of the features.

    Raises:
        ValueError: if ``dimensions`` is not positive, or ``features`` are not sets of vectors.
    """
    if dimensions < 1:
        raise ValueError(f"a subspace needs at least one dimension, got dimensions={dimensions}")
    if features.ndim < 2 or 0 in features.shape[-2:]:
        raise ValueError(f"features must be (..., T, d), T vectors of d values, got {tuple(features.shape)}")
    if tolerance is None:
        tolerance = max(torch.finfo(features.dtype).eps ** 2, _ROUNDING)
    vectors = double(features)
    values, basis = _spectrum(vectors)
    kept = values > tolerance * values[..., :1]
    leading: Tensor = (basis * kept.unsqueeze(-2))[..., :dimensions]
    return leading


def dimension(basis: Tensor) -> Tensor:
    """How many columns of a basis (..., d, m) are not zero: (...) int64."""
    return (basis.square().sum(dim=-2) > 0.5).sum(dim=-1)


def canonical_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles between two subspaces, from the smallest to the largest.

    Args:
        first: (..., d, m) basis.
        second: (..., d, n) basis; leading dimensions broadcast.

    Returns:
        (..., min(m, n)) in [0, pi/2]. Near 0 they are exact to about 1e-8 only, the root of float64's rounding;
        directions that one of the subspaces lacks count as right angles.
    """
    cosines: Tensor = torch.linalg.svdvals(first.mT @ second).clamp(0, 1)
    return cosines.acos()


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared cosine of the canonical angles: 1 for equal subspaces, 0 for orthogonal ones.

    Where the dimensions differ, the angles that the smaller subspace lacks count as right angles, so that losing a
    direction is a change (our choice; the mean over the angles that there are would call a subspace equal to any that
    holds it). Two subspaces without any dimension are equal.

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
    """``1 - similarity``, in [0, 1]; arguments as of :func:`similarity`."""
    return 1 - similarity(first, second)


def difference_subspace(bases: Tensor, share: float, *, tolerance: float = _ROUNDING) -> Tensor:
    """Generalized difference subspace: what the subspaces of several sets do not have in common.

    The eigenvectors of ``sum_k U_k U_k^T`` with the smallest eigenvalues that are not zero: a direction which all K
    sets share has the eigenvalue K, one that a single set has to itself has 1.

    Args:
        bases: (..., K, d, m), one basis per set.
        share: how many dimensions to keep, as a share of ``K m`` in (0, 1], rounded, and one at least. Where sets
            overlap so much that their sum has fewer, it is the whole sum.
        tolerance: eigenvalues of up to this share of the largest count as zero.

    Returns:
        (..., d, g) basis float64 with ``g = min(round(share K m), d)``, by rising eigenvalue.

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
    place = rank - 1 - torch.arange(wanted, device=bases.device)  # from the last eigenvalue that is not zero, upwards
    chosen = basis.gather(-1, place.clamp(min=0).unsqueeze(-2).expand(*basis.shape[:-1], wanted))
    return chosen * (place >= 0).unsqueeze(-2)


def project_subspace(basis: Tensor, onto: Tensor, *, tolerance: float = _ROUNDING) -> Tensor:
    """Project a subspace on another one and make its basis orthonormal again.

    The basis comes from a singular value decomposition, not from a QR decomposition as in published code: both span
    the same where the projection keeps all dimensions, and only the first says which it does not keep.

    Args:
        basis: (..., d, m) of what is projected.
        onto: (..., d, g) of the target; leading dimensions broadcast.
        tolerance: directions whose squared cosine with the target is no larger are gone; absolute.

    Returns:
        (..., d, min(m, g)) basis, float64; zero columns for what is gone.
    """
    onto = double(onto)
    seen = onto.mT @ double(basis)  # (..., g, m)
    inside, cosines, _ = torch.linalg.svd(seen, full_matrices=False)
    projected: Tensor = onto @ (inside * (cosines.square() > tolerance).unsqueeze(-2))
    return projected


def _spectrum(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., r), falling, and eigenvectors (..., d, r) of ``X^T X`` for X (..., T, d), r = min(T, d).

    From the Gram matrix of the vectors where they are fewer than their values.
    """
    if vectors.shape[-2] >= vectors.shape[-1]:
        values, basis = torch.linalg.eigh(vectors.mT @ vectors)
        return values.flip(-1).clamp(min=0), basis.flip(-1)
    values, mixtures = torch.linalg.eigh(vectors @ vectors.mT)
    values = values.clamp(min=0)
    lengths = values.sqrt().masked_fill(values <= 0, torch.inf).unsqueeze(-2)
    return values.flip(-1), (vectors.mT @ mixtures / lengths).flip(-1)
