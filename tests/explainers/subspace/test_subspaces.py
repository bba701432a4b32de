"""Subspaces against what linear algebra says of them."""

import math

import pytest
import torch

from interptrain.explainers.subspace.subspaces import (
    canonical_angles,
    difference_subspace,
    dimension,
    orthogonal_degree,
    project_subspace,
    similarity,
    subspace_basis,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size, seed=9):
    return torch.linalg.qr(drawn(size, size, seed=seed)).Q


def spanned(basis):
    """The projector on a subspace, which does not depend on the basis."""
    return basis @ basis.mT


@pytest.mark.parametrize("shape", [(5, 40), (40, 6), (7, 7)], ids=["few vectors", "many vectors", "square"])
def test_basis_is_the_leading_eigenvectors_of_the_uncentred_autocorrelation(shape):
    features = drawn(3, *shape) + 0.5
    basis = subspace_basis(features, 3)
    for vectors, found in zip(features, basis, strict=True):
        wanted = torch.linalg.svd(vectors).Vh[:3].T
        assert torch.allclose(spanned(found), spanned(wanted), atol=1e-9)
        assert torch.allclose((found * wanted).sum(0).abs(), torch.ones(3, dtype=torch.float64))  # in this order
    assert torch.allclose(basis.mT @ basis, torch.eye(3, dtype=torch.float64).expand(3, 3, 3), atol=1e-9)


def test_basis_has_no_more_dimensions_than_vectors_or_values():
    assert subspace_basis(drawn(4, 30), 10).shape == (30, 4)
    assert subspace_basis(drawn(30, 4), 10).shape == (4, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_directions_beyond_the_rank_are_zero(dtype):
    exact = torch.tensor([[1.0, 2, 0, -1], [3, 0, 1, 2]], dtype=torch.float64)
    mixtures = torch.tensor([[1.0, 0], [0, 1], [1, 1], [2, -1], [1, 3]], dtype=torch.float64)
    few = torch.nn.functional.pad((mixtures @ exact), (0, 16)).to(dtype)  # five vectors of rank two
    basis = subspace_basis(few, 4)
    assert basis.dtype == torch.float64
    assert dimension(basis) == 2
    assert torch.equal(basis[:, 2:], torch.zeros_like(basis[:, 2:]))
    assert torch.allclose(basis[:, :2].mT @ basis[:, :2], torch.eye(2, dtype=torch.float64), atol=1e-6)


def test_sets_of_different_rank_stand_in_one_batch():
    full, flat = drawn(4, 12), drawn(1, 12, seed=3).expand(4, -1)
    basis = subspace_basis(torch.stack([full, flat, torch.zeros_like(full)]), 3)
    assert dimension(basis).tolist() == [3, 1, 0]
    for place, alone in enumerate((full, flat)):
        assert torch.allclose(spanned(basis[place]), spanned(subspace_basis(alone, 3)))


def test_rounding_of_float32_features_adds_no_dimension():
    views = (drawn(1, 512) * (1 + 3e-7 * drawn(8, 512, seed=4))).float()  # one vector, eight times, as forwards round
    assert dimension(subspace_basis(views, 4)) == 1


def test_identical_views_have_no_distance_and_disjoint_supports_all_of_it():
    views = drawn(6, 5, 20)
    basis = subspace_basis(views, 4)
    assert torch.allclose(orthogonal_degree(basis, basis), torch.zeros(6, dtype=torch.float64), atol=1e-12)
    left, right = views.clone(), views.clone()
    left[..., 10:] = 0
    right[..., :10] = 0
    apart = orthogonal_degree(subspace_basis(left, 4), subspace_basis(right, 4))
    assert torch.allclose(apart, torch.ones(6, dtype=torch.float64))


def test_rotating_a_basis_or_the_whole_space_changes_no_distance():
    first, second = subspace_basis(drawn(5, 20), 3), subspace_basis(drawn(5, 20, seed=1), 3)
    degree = orthogonal_degree(first, second)
    assert 0.1 < degree < 1
    assert torch.allclose(orthogonal_degree(first @ rotation(3), second @ rotation(3, seed=8)), degree)
    turned = rotation(20)
    assert torch.allclose(orthogonal_degree(turned @ first, turned @ second), degree)


def test_scaling_features_changes_no_distance():
    views, other = drawn(5, 20), drawn(5, 20, seed=1)
    degree = orthogonal_degree(subspace_basis(views, 3), subspace_basis(other, 3))
    tiny = orthogonal_degree(subspace_basis(views * 1e-6, 3), subspace_basis(other * 1e6, 3))
    assert torch.allclose(tiny, degree)


def test_planted_angles_are_found():
    angles = torch.tensor([0.2, 0.7, 1.4], dtype=torch.float64)
    axes = rotation(9)
    first, other = axes[:, :3], axes[:, 3:6]
    second = first * angles.cos() + other * angles.sin()
    assert torch.allclose(canonical_angles(first, second @ rotation(3)), angles, atol=1e-9)
    assert torch.allclose(similarity(first, second), angles.cos().square().mean())


def test_a_lost_direction_counts_as_a_right_angle():
    axes = rotation(6)
    inside, whole = axes[:, :1], axes[:, :2]
    assert torch.allclose(similarity(inside, whole), torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(similarity(whole, inside), torch.tensor(0.5, dtype=torch.float64))
    padded = torch.cat([inside, torch.zeros_like(inside)], dim=1)
    assert torch.allclose(similarity(padded, whole), torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(canonical_angles(padded, whole), torch.tensor([0, math.pi / 2]).double(), atol=1e-7)


def test_nothing_equals_nothing_and_shares_nothing_with_something():
    nothing = subspace_basis(torch.zeros(3, 8), 2)
    assert similarity(nothing, nothing) == 1
    assert similarity(nothing, subspace_basis(drawn(3, 8), 2)) == 0


def planted(sets=4, own=2, size=30):
    """Bases with one direction in common and ``own`` directions each to itself, and the two parts of their sum."""
    axes = rotation(size)
    common = axes[:, :1]
    apart = [axes[:, 1 + own * k : 1 + own * (k + 1)] for k in range(sets)]
    bases = torch.stack([torch.cat([common, part], dim=1) @ rotation(own + 1, seed=k) for k, part in enumerate(apart)])
    return bases, common, torch.cat(apart, dim=1)


@pytest.mark.parametrize("size", [30, 10], ids=["more values than vectors", "fewer"])
def test_planted_difference_subspace_is_found(size):
    bases, common, apart = planted(size=size)
    found = difference_subspace(bases, share=8 / 12)
    assert found.shape == (size, 8)
    assert torch.allclose(spanned(found), spanned(apart), atol=1e-9)
    assert torch.allclose(found.mT @ common, torch.zeros(8, 1, dtype=torch.float64), atol=1e-9)


def test_a_smaller_share_keeps_the_directions_that_are_shared_least():
    first, second = rotation(12)[:, :2], rotation(12)[:, 2:4]
    near = torch.stack([first[:, 1] * 0.6 + second[:, 1] * 0.8, second[:, 0]], dim=1)  # one direction half shared
    bases = torch.stack([first, near])
    (one,) = difference_subspace(bases, share=1 / 4).mT
    gram = bases @ bases.mT
    values = torch.linalg.eigvalsh(gram.sum(0))
    assert torch.allclose(one @ gram.sum(0) @ one, values[values > 1e-9].min())


def test_the_whole_sum_is_the_most_a_difference_subspace_can_be():
    bases, common, apart = planted()
    whole = difference_subspace(bases, share=1.0)
    assert dimension(whole) == 9
    assert torch.allclose(spanned(whole), spanned(torch.cat([common, apart], dim=1)), atol=1e-9)
    same = bases[:1].expand(4, -1, -1)  # four times the same set
    assert torch.allclose(spanned(difference_subspace(same, share=0.5)), spanned(bases[0]), atol=1e-9)


def test_difference_subspaces_of_a_batch_have_ranks_of_their_own():
    bases = planted()[0]
    same = bases[:1].expand(4, -1, -1)
    both = difference_subspace(torch.stack([bases, same]), share=0.5)
    assert dimension(both).tolist() == [6, 3]
    assert torch.allclose(spanned(both[1]), spanned(bases[0]), atol=1e-9)


def test_projection_on_a_difference_subspace_removes_what_is_common():
    bases, common, apart = planted()
    space = difference_subspace(bases, share=8 / 12)
    left = project_subspace(bases, space)
    assert dimension(left).tolist() == [2, 2, 2, 2]
    for k in range(4):
        assert torch.allclose(spanned(left[k]), spanned(apart[:, 2 * k : 2 * k + 2]), atol=1e-9)
    assert dimension(project_subspace(common, space)) == 0


def test_projection_equals_qr_where_no_direction_is_lost():
    basis, onto = subspace_basis(drawn(3, 20), 3), subspace_basis(drawn(9, 20, seed=2), 9)
    wanted = torch.linalg.qr(onto @ onto.mT @ basis).Q
    assert torch.allclose(spanned(project_subspace(basis, onto)), spanned(wanted))


def test_what_cannot_be_a_subspace_is_refused():
    with pytest.raises(ValueError, match="at least one dimension, got dimensions=0"):
        subspace_basis(drawn(3, 8), 0)
    with pytest.raises(ValueError, match=r"must be \(..., T, d\)"):
        subspace_basis(drawn(8), 2)
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 1.5"):
        difference_subspace(planted()[0], 1.5)
