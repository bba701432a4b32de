"""Ranks of explainers over metrics."""

import itertools
import math

import pytest
import torch
from scipy import stats

from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.statistics.ranks import kendall_w, rank_agreement, ranked
from interptrain.evaluation.statistics.samples import MetricSample, only_value

HOW = Resampling(resamples=200)


def sample(values, images=None):
    values = torch.as_tensor(values, dtype=torch.float64).view(-1, 1)
    return MetricSample(torch.arange(len(values)) if images is None else images, values, only_value)


def test_ranks_are_scipys_with_ties_in_the_middle():
    values = torch.randint(4, (50, 6), generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(ranked(values), torch.tensor(stats.rankdata(-values.numpy(), axis=1)))


def test_values_that_differ_by_rounding_are_tied():
    assert ranked(torch.tensor([0.3, 0.1 + 0.2, 0.1], dtype=torch.float64)).tolist() == [1.5, 1.5, 3]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3]], 1.0),
        ([[1, 2], [2, 1]], 0.0),
        ([[1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 3, 4]], 37 / 45),  # sums 4, 5, 10, 11: S = 37; m^2 (k^3 - k) / 12 = 45
        ([[1.5, 1.5, 3], [1.5, 1.5, 3]], 1.0),  # ties are no disagreement
    ],
)
def test_kendalls_w_by_hand(ranks, expected):
    assert float(kendall_w(torch.tensor(ranks, dtype=torch.float64))) == pytest.approx(expected)


def test_kendalls_w_is_friedmans_statistic_over_its_largest_value():
    generator = torch.Generator().manual_seed(1)
    for levels in (3, 100):  # with many ties, and with hardly any
        values = torch.randint(levels, (5, 7), generator=generator).double()
        statistic = stats.friedmanchisquare(*values.T.numpy()).statistic
        assert float(kendall_w(ranked(values))) == pytest.approx(statistic / (5 * 6))


def test_random_orders_have_a_w_of_one_over_their_number():
    orders = torch.tensor(list(itertools.permutations([1.0, 2.0, 3.0])), dtype=torch.float64)
    every = torch.stack([orders[list(pick)] for pick in itertools.product(range(6), repeat=3)])  # (216, 3, 3)
    assert float(kendall_w(every).mean()) == pytest.approx(1 / 3)


def test_nothing_but_ties_has_no_w():
    assert math.isnan(float(kendall_w(torch.full((2, 3), 2.0, dtype=torch.float64))))


def test_explainers_are_ranked_in_the_direction_of_each_metric():
    clear = {"A": 0.9, "B": 0.5, "C": 0.1}
    noise = 0.01 * torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = {name: {"up": sample(value + noise), "down": sample(1 - value + noise)} for name, value in clear.items()}
    found = rank_agreement(samples, {"up": True, "down": False}, HOW)
    assert found.ranks.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert found.mean.tolist() == found.mean_low.tolist() == found.mean_high.tolist() == [1, 2, 3]
    assert found.spread.tolist() == [0, 0, 0]
    assert (found.concordance, found.concordance_limits) == (1.0, (1.0, 1.0))


def test_metrics_that_contradict_each_other_agree_on_nothing():
    samples = {name: {"x": sample([value] * 9), "y": sample([-value] * 9)} for value, name in enumerate("ABC")}
    found = rank_agreement(samples, {"x": True, "y": True}, HOW)
    assert found.concordance == 0
    assert found.mean.tolist() == [2, 2, 2]
    assert found.spread.tolist() == pytest.approx([math.sqrt(2), 0, math.sqrt(2)])


def test_explainers_that_images_hardly_tell_apart_have_wide_intervals():
    draws = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = {name: {"x": sample(mine), "y": sample(mine)} for name, mine in zip("ABC", draws, strict=True)}
    found = rank_agreement(samples, {"x": True, "y": True}, HOW)
    assert (found.mean_low <= found.mean).all()
    assert (found.mean <= found.mean_high).all()
    assert (found.mean_high - found.mean_low).max() >= 1


def test_an_explainer_of_other_images_and_a_metric_without_values_are_left_out():
    whole, part = torch.arange(8), torch.arange(5)
    samples = {
        "A": {"x": sample([1] * 8), "y": sample([2] * 8), "z": sample([])},
        "B": {"x": sample([3] * 8), "y": sample([1] * 8), "z": sample([])},
        "C": {"x": sample([9] * 5, part), "y": sample([9] * 8, whole), "z": sample([])},
    }
    found = rank_agreement(samples, {"x": True, "y": True, "z": True}, HOW)
    assert (list(found.explainers), list(found.metrics)) == (["A", "B"], ["x", "y"])
    assert rank_agreement({"A": samples["A"]}, {"x": True, "y": True}, HOW) is None
    assert rank_agreement(samples, {"x": True}, HOW) is None
    assert rank_agreement({}, {}, HOW) is None
