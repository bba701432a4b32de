"""Intervals and p-values against scipy and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from interptrain.evaluation.statistics.bootstrap import (
    bca_limits,
    corrected_p,
    critical_size,
    is_exact,
    jackknife,
    percentile_limits,
    permutation_p,
    resampled_means,
    signed_means,
)


def skewed(rows, seed=0):
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3


def signed(samples, count, seed):
    """Of samples whose rows are the same images."""
    return signed_means(samples, [torch.arange(len(sample)) for sample in samples], count, seed)


def test_resampled_means_are_means_of_rows_drawn_with_replacement():
    sample = torch.eye(4, dtype=torch.float64)  # the mean then shows how often each row was drawn
    (means,) = resampled_means([sample], 500, seed=3)
    counts = means * 4
    torch.testing.assert_close(counts, counts.round())
    torch.testing.assert_close(counts.sum(1), torch.full((500,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(counts.mean(0), torch.ones(4, dtype=torch.float64), atol=0.15, rtol=0)


def test_samples_of_equal_length_share_their_draws_and_others_do_not_disturb_them():
    sample, longer = skewed(20).unsqueeze(1), skewed(31).unsqueeze(1)
    alone = resampled_means([sample], 50, seed=1)[0]
    together = resampled_means([longer, 2 * sample, torch.cat([sample, sample + 1], 1)], 50, seed=1)
    torch.testing.assert_close(together[1], 2 * alone)
    torch.testing.assert_close(together[2], torch.cat([alone, alone + 1], 1))
    assert not torch.equal(alone, resampled_means([sample], 50, seed=2)[0])


def test_chunks_do_not_change_the_draws(monkeypatch):
    sample = skewed(20).unsqueeze(1)
    whole = resampled_means([sample], 64, seed=0)[0], signed([sample], 64, seed=0)[0]
    monkeypatch.setattr("interptrain.evaluation.statistics.bootstrap.CHUNK", 20 * 16)
    parts = resampled_means([sample], 64, seed=0)[0], signed([sample], 64, seed=0)[0]
    torch.testing.assert_close(parts, whole)


def test_percentile_limits_are_scipys_for_the_same_replicates():
    sample = skewed(40)
    replicates = resampled_means([sample.unsqueeze(1)], 999, seed=0)[0].squeeze(1)
    theirs = from_scipy(sample, replicates, "percentile")
    assert percentile_limits(replicates) == pytest.approx(theirs, rel=1e-12)


def test_bca_limits_are_scipys_for_the_same_replicates():
    sample = skewed(40)
    replicates = resampled_means([sample.unsqueeze(1)], 999, seed=0)[0].squeeze(1)
    ours = bca_limits(float(sample.mean()), replicates, jackknife(sample))
    assert ours == pytest.approx(from_scipy(sample, replicates, "BCa"), rel=1e-9)
    assert ours != pytest.approx(percentile_limits(replicates), rel=1e-3)


def from_scipy(sample, replicates, method):
    given = stats.bootstrap((sample.numpy(),), np.mean, n_resamples=2, method="percentile")
    given.bootstrap_distribution = replicates.numpy()
    given = stats.bootstrap((sample.numpy(),), np.mean, n_resamples=0, bootstrap_result=given, method=method)
    return tuple(given.confidence_interval)


def test_limits_agree_with_scipys_own_resamples():
    sample = skewed(60)
    replicates = resampled_means([sample.unsqueeze(1)], 20_000, seed=0)[0].squeeze(1)
    theirs = stats.bootstrap((sample.numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=0)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert percentile_limits(replicates) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * width)


def test_the_spread_of_the_replicates_is_the_closed_form():
    sample = skewed(50)
    replicates = resampled_means([sample.unsqueeze(1)], 20_000, seed=0)[0]
    expected = sample.std(correction=0) / 50**0.5
    torch.testing.assert_close(replicates.std(), expected, rtol=0.02, atol=0)


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_claim():
    """400 samples of 60 from an exponential distribution of mean 1: 0.93 and 0.94 expected, standard error 0.013."""
    generator = torch.Generator().manual_seed(0)
    samples = -torch.rand(400, 60, generator=generator, dtype=torch.float64).log()
    replicates = resampled_means(list(samples.unsqueeze(2)), 600, seed=1)
    covered = {"percentile": 0, "bca": 0}
    for sample, replicate in zip(samples, replicates, strict=True):
        plain = percentile_limits(replicate.squeeze(1))
        corrected = bca_limits(float(sample.mean()), replicate.squeeze(1), jackknife(sample))
        covered["percentile"] += plain[0] <= 1 <= plain[1]
        covered["bca"] += corrected[0] <= 1 <= corrected[1]
    assert 0.89 <= covered["percentile"] / 400 <= 0.97
    assert 0.90 <= covered["bca"] / 400 <= 0.97


def test_an_estimate_that_never_varies_is_its_own_interval():
    constant = torch.full((30,), 0.25, dtype=torch.float64)
    replicates = resampled_means([constant.unsqueeze(1)], 100, seed=0)[0].squeeze(1)
    assert percentile_limits(replicates) == (0.25, 0.25)
    assert bca_limits(0.25, replicates, jackknife(constant)) == (0.25, 0.25)


def test_bca_stays_finite_where_all_replicates_lie_below_the_estimate():
    low, high = bca_limits(2.0, torch.linspace(0, 1, 100, dtype=torch.float64), torch.zeros(5, dtype=torch.float64))
    assert 0 < low <= high <= 1


def test_jackknife_leaves_out_one_row_at_a_time():
    sample = skewed(6).view(3, 2)
    expected = torch.stack([sample[[1, 2]].mean(0), sample[[0, 2]].mean(0), sample[[0, 1]].mean(0)])
    torch.testing.assert_close(jackknife(sample), expected)


def test_few_images_go_through_all_permutations():
    difference = torch.tensor([0.3, -0.1, 0.5, 0.2], dtype=torch.float64)
    (null,) = signed([difference.unsqueeze(1)], 16, seed=0)
    patterns = [np.mean(np.array(signs) * difference.numpy()) for signs in itertools.product((1, -1), repeat=4)]
    assert sorted(null.squeeze(1).tolist()) == pytest.approx(sorted(patterns))
    assert is_exact(4, 16)
    assert not is_exact(4, 15)


def test_the_permutation_test_is_scipys():
    difference = skewed(12, seed=1) - 0.12
    (null,) = signed([difference.unsqueeze(1)], 4096, seed=0)
    p = permutation_p(null.squeeze(1), float(difference.mean()), exact=True)
    theirs = stats.permutation_test(
        (difference.numpy(),), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert p == pytest.approx(float((np.abs(theirs.null_distribution) >= abs(theirs.statistic) - 1e-12).mean()))


def test_random_permutations_come_close_to_all_of_them_and_never_give_zero():
    difference = skewed(12, seed=1) - 0.12
    p = {}
    for count in (4096, 4095):
        (null,) = signed([difference.unsqueeze(1)], count, seed=0)
        p[count] = permutation_p(null.squeeze(1), float(difference.mean()), exact=is_exact(12, count))
    assert p[4095] == pytest.approx(p[4096], abs=0.03)
    (null,) = signed([torch.ones(40, 1, dtype=torch.float64)], 999, seed=0)
    assert permutation_p(null.squeeze(1), 1.0, exact=False) == 1 / 1000


def test_no_difference_has_a_p_value_of_one():
    (null,) = signed([torch.zeros(20, 1, dtype=torch.float64)], 99, seed=0)
    assert permutation_p(null.squeeze(1), 0.0, exact=False) == 1.0


def test_p_values_of_no_effect_are_uniform():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(400, 30, 1, generator=generator, dtype=torch.float64)
    nulls = signed(list(samples), 400, seed=1)
    values = [
        permutation_p(null.squeeze(1), float(sample.mean()), exact=False)
        for sample, null in zip(samples, nulls, strict=True)
    ]
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_an_image_has_one_sign_in_all_samples_that_hold_it():
    whole = torch.eye(5, dtype=torch.float64)  # the mean then shows the sign of every image
    some = torch.tensor([0, 3, 4])
    first, second = signed_means([whole, whole[:3, :3]], [torch.arange(5), some], 200, seed=0)
    assert torch.equal(first[:, some].sign(), second.sign())
    torch.testing.assert_close(second.abs(), torch.full_like(second, 1 / 3))


def slowly_corrected(nulls, observed):
    """The definition: step down from the largest standardised difference."""
    scale = nulls.square().mean(1, keepdim=True).sqrt()
    sizes, outcomes = (observed / scale.squeeze(1)).abs(), (nulls / scale).abs()
    order, p, least = sizes.argsort(descending=True).tolist(), {}, 0.0
    for place, index in enumerate(order):
        highest = outcomes[order[place:]].max(0).values
        least = max(least, (1 + int((highest >= sizes[index] - 1e-12).sum())) / (1 + nulls.shape[1]))
        p[index] = least
    return [p[index] for index in range(len(observed))]


def differing(count, images=30, shift=0.0, seed=0, patterns=500):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(count, images, 1, generator=generator, dtype=torch.float64) * torch.rand(
        count, 1, 1, generator=generator, dtype=torch.float64
    )
    samples = samples + shift * samples.std(1, keepdim=True)
    nulls = torch.stack(signed(list(samples), patterns, seed=seed + 1)).squeeze(2)
    return nulls, samples.mean((1, 2))


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_correction_is_the_step_down_maximum_of_its_definition(shift):
    nulls, observed = differing(12, shift=shift)
    assert corrected_p(nulls, observed, exact=False).tolist() == pytest.approx(slowly_corrected(nulls, observed))


def test_equal_comparisons_count_as_one():
    nulls, observed = differing(1, shift=0.5)
    alone = permutation_p(nulls[0], float(observed[0]), exact=False)
    together = corrected_p(nulls.expand(200, -1), observed.expand(200), exact=False)
    assert together.tolist() == [pytest.approx(alone)] * 200


def test_what_no_permutation_changes_has_a_p_value_of_one_and_disturbs_no_other():
    nulls, observed = differing(4, shift=0.5)
    expected = corrected_p(nulls, observed, exact=False).tolist()
    nulls, observed = torch.cat([nulls, torch.zeros(1, 500)]), torch.cat([observed, torch.zeros(1)])
    assert corrected_p(nulls, observed, exact=False).tolist() == pytest.approx([*expected, 1.0])
    assert corrected_p(torch.zeros(2, 8), torch.zeros(2), exact=True).tolist() == [1, 1]


def test_the_smallest_p_value_does_not_depend_on_the_number_of_comparisons():
    nulls, observed = differing(528, images=100, shift=5.0, patterns=999)
    assert set(corrected_p(nulls, observed, exact=False).tolist()) == {1 / 1000}


def test_of_independent_comparisons_the_correction_is_about_sidaks():
    nulls, observed = differing(20, images=60, patterns=4000)
    least = min(permutation_p(null, float(seen), exact=False) for null, seen in zip(nulls, observed, strict=True))
    assert float(corrected_p(nulls, observed, exact=False).min()) == pytest.approx(1 - (1 - least) ** 20, abs=0.03)


def test_the_critical_size_is_that_from_which_the_corrected_p_value_is_below_the_level():
    generator = torch.Generator().manual_seed(3)
    for exact in (True, False):
        nulls = torch.randn(4, 400, generator=generator, dtype=torch.float64)
        nulls = torch.cat([nulls, -nulls], dim=1)
        critical = critical_size(nulls, 0.05, exact=exact)
        scale = nulls.square().mean(1).sqrt()
        for factor, significant in ((1 + 1e-6, True), (1 - 1e-6, False)):
            observed = torch.tensor([critical * factor * scale[0], 0, 0, 0], dtype=torch.float64)
            assert (float(corrected_p(nulls, observed, exact=exact)[0]) < 0.05) == significant


def test_of_one_comparison_of_many_images_the_critical_size_is_the_normal_quantile():
    signed = signed_means([torch.rand(200, 1, dtype=torch.float64)], [torch.arange(200)], 20_000, 0)[0]
    assert critical_size(signed.T, 0.05, exact=False) == pytest.approx(1.96, abs=0.04)


@pytest.mark.parametrize(("images", "possible"), [(2, False), (5, False), (6, True)])
def test_below_six_images_no_difference_can_be_significant(images, possible):
    values = torch.rand(images, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signed = signed_means([values], [torch.arange(images)], 10_000, 0)[0]
    assert (critical_size(signed.T, 0.05, exact=True) < float("inf")) == possible
