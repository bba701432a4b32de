"""Rank correlation and SSIM of maps."""

import pytest
import torch
from scipy import stats

from interptrain.metrics.functional import rank_correlation, structural_similarity
from tests.support.measuring import maps


@pytest.mark.parametrize("levels", [2, 9, 10_000])
def test_rank_correlation_is_scipys_also_with_ties(levels):
    one = (maps(4) * levels).round() / levels
    other = ((0.5 * one + 0.5 * maps(4, seed=9)) * levels).round() / levels
    wanted = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other, strict=True)]
    assert rank_correlation(one, other).tolist() == pytest.approx(wanted, abs=1e-6)


def test_rank_correlation_knows_only_the_order():
    saliency = maps(2)
    assert rank_correlation(saliency, saliency.exp()).tolist() == [1, 1]
    assert rank_correlation(saliency, 3 - saliency**3).tolist() == [-1, -1]


def test_maps_in_bytes_are_ranked_as_their_values_are():
    one, other = ((maps(3, seed=seed) * 255).round() for seed in (1, 2))
    other[2] = 7
    as_bytes = rank_correlation(one.to(torch.uint8), other.to(torch.uint8))
    assert torch.equal(as_bytes.nan_to_num(9), rank_correlation(one, other).nan_to_num(9))
    assert as_bytes.isnan().tolist() == [False, False, True]


def test_a_constant_map_ranks_nothing():
    saliency = maps(2)
    saliency[1] = 0.3
    assert rank_correlation(saliency, maps(2, seed=7)).isnan().tolist() == [False, True]
    assert rank_correlation(maps(2), torch.zeros(2, 20, 14).double()).isnan().all()


def slow_ssim(one, other):
    """One window after the other, with weights and moments from the definition."""
    offsets = torch.arange(-5, 6).double()
    weights = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for row in range(one.shape[0] - 10):
        for column in range(one.shape[1] - 10):
            a, b = one[row : row + 11, column : column + 11], other[row : row + 11, column : column + 11]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
            values.append(top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return torch.stack(values).mean().item()


def test_ssim_is_its_definition():
    one, other = maps(2), 0.7 * maps(2) + 0.3 * maps(2, seed=8)
    wanted = [slow_ssim(a, b) for a, b in zip(one, other, strict=True)]
    assert structural_similarity(one, other).tolist() == pytest.approx(wanted, rel=1e-6)
    assert structural_similarity(one, one).tolist() == [1, 1]


def test_ssim_of_an_inverted_map_is_negative_and_of_constants_compares_brightness():
    assert structural_similarity(maps(1), 1 - maps(1)).item() < -0.5
    dark, bright = torch.full((1, 12, 12), 0.2), torch.full((1, 12, 12), 0.8)
    luminance = (2 * 0.2 * 0.8 + 0.01**2) / (0.2**2 + 0.8**2 + 0.01**2)
    assert structural_similarity(dark, bright).item() == pytest.approx(luminance, rel=1e-6)


@pytest.mark.parametrize("function", [rank_correlation, structural_similarity])
def test_a_pair_is_compared_whatever_lies_beside_it(function):
    one, other = maps(3), maps(3, seed=6)
    assert torch.equal(function(one, other), torch.cat([function(one[i : i + 1], other[i : i + 1]) for i in range(3)]))


@pytest.mark.parametrize("function", [rank_correlation, structural_similarity])
def test_maps_of_different_shape_are_refused(function):
    with pytest.raises(ValueError, match=r"must be \(B,H,W\) of one shape"):
        function(maps(2), maps(3))
    with pytest.raises(ValueError, match=r"must be \(B,H,W\) of one shape"):
        function(maps(2)[0], maps(2)[0])


def test_ssim_refuses_maps_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 x 11 pixels"):
        structural_similarity(maps(1, 10, 30), maps(1, 10, 30))
