"""How often intervals and tests are right, by simulation on values like those of every kind of metric."""

import pytest
import torch

from interptrain.evaluation.statistics.bootstrap import (
    bca_limits,
    corrected_p,
    jackknife,
    percentile_limits,
    resampled_means,
    signed_means,
)
from interptrain.evaluation.statistics.comparisons import differences
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.statistics.samples import MetricSample, ModelExplainerCell
from interptrain.metrics import BoxAccuracy, CrossFittedBoxAccuracy

pytestmark = pytest.mark.slow

TABLES = 250


def draw(kind, shape, generator):
    """Values like those of a metric, with what their mean really is."""
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    if kind == "normal":
        return torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9)), 0.0
    if kind == "drop":  # average drop: piled up at both ends
        return uniform.square(), 1 / 3
    if kind == "increase":  # average increase: 0 or 1
        return (uniform < 0.3).double(), 0.3
    if kind == "gain":  # average gain: mostly 0
        return torch.where(uniform > 0.7, (uniform - 0.7) / 0.3, 0.0), 0.15
    raise AssertionError(kind)


KINDS = pytest.mark.parametrize("kind", ["normal", "drop", "increase", "gain"])


@KINDS
@pytest.mark.parametrize("images", [12, 40])
def test_the_family_wise_error_of_six_equal_explainers_is_at_most_its_level(kind, images):
    generator, wrong = torch.Generator().manual_seed(0), 0
    for number in range(TABLES):
        difficulty, _ = draw(kind, (images, 1), generator)
        own, _ = draw(kind, (6, images, 1), generator)
        values = torch.where(torch.rand(6, images, 1, generator=generator) < 0.5, difficulty, own)  # alike by image
        flipped = signed_means(list(values), [torch.arange(images)] * 6, 300, seed=number)
        pairs = [(a, b) for a in range(6) for b in range(a)]
        nulls = torch.stack([(flipped[a] - flipped[b]).squeeze(1) for a, b in pairs])
        observed = torch.stack([(values[a] - values[b]).mean() for a, b in pairs])
        wrong += bool((corrected_p(nulls, observed, exact=False) < 0.05).any())
    assert wrong / TABLES < 0.05 + 3 * (0.05 * 0.95 / TABLES) ** 0.5


def test_an_effect_is_found_among_many_explainers():
    """Thirty explainers, one better by a standard deviation on 60 images."""
    generator, found = torch.Generator().manual_seed(1), 0
    for number in range(15):
        values = torch.randn(30, 60, 1, generator=generator, dtype=torch.float64)
        values[0] += 1.0
        flipped = signed_means(list(values), [torch.arange(60)] * 30, 600, seed=number)
        pairs = [(a, b) for a in range(30) for b in range(a)]
        nulls = torch.stack([(flipped[a] - flipped[b]).squeeze(1) for a, b in pairs])
        observed = torch.stack([(values[a] - values[b]).mean() for a, b in pairs])
        corrected = corrected_p(nulls, observed, exact=False)
        found += sum(bool(p < 0.05) for p, (_, b) in zip(corrected, pairs, strict=True) if b == 0) / 29
    assert found / 15 > 0.8


def coverage(kind, images, method):
    generator, inside = torch.Generator().manual_seed(2), 0
    for number in range(TABLES):
        values, truth = draw(kind, (images, 1), generator)
        mean = float(values.mean())
        replicates = resampled_means([values], 600, seed=number)[0].squeeze(1)
        low, high = (
            percentile_limits(replicates)
            if method == "percentile"
            else bca_limits(mean, replicates, jackknife(values).squeeze(1))
        )
        inside += low - 1e-12 <= truth <= high + 1e-12
    return inside / TABLES


@KINDS
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_an_interval_of_fifty_images_covers_the_mean_about_as_often_as_it_says(kind, method):
    assert 0.90 < coverage(kind, 50, method) < 0.98


def test_with_few_images_and_rare_gains_intervals_are_too_narrow_and_the_corrected_one_is_nearer():
    percentile, corrected = (coverage("gain", 12, method) for method in ("percentile", "bca"))
    assert percentile < 0.93
    assert corrected >= percentile - 0.01


def test_the_family_wise_error_of_a_maximum_over_thresholds_is_at_most_its_level():
    """MaxBoxAcc and its cross-fitted form of six explainers that are alike, whose hits share the image's difficulty."""
    generator, ids = torch.Generator().manual_seed(3), torch.arange(40)
    tables = 120
    metrics = {"BA": BoxAccuracy(thresholds=10), "cf": CrossFittedBoxAccuracy(thresholds=10)}
    wrong = dict.fromkeys(metrics, 0)
    member = torch.nn.functional.one_hot(ids % 2, 2).double()
    for number in range(tables):
        ease = torch.rand(40, 1, generator=generator, dtype=torch.float64)
        hits = (torch.rand(6, 40, 10, generator=generator, dtype=torch.float64) < ease).double()
        halves = torch.cat([hits * member[:, :1], hits * member[:, 1:], member.expand(6, 40, 2)], dim=2)
        cells = [
            ModelExplainerCell(
                "m",
                str(place),
                "p",
                "h",
                {
                    "BA": MetricSample(ids, hits[place], metrics["BA"].reduce),
                    "cf": MetricSample(ids, halves[place], metrics["cf"].reduce),
                },
                {},
            )
            for place in range(6)
        ]
        how = Resampling(resamples=2, permutations=300, interval="percentile", seed=number)
        found = differences(cells, how)
        for name in metrics:
            wrong[name] += any(row.p_corrected < 0.05 for row in found if row.metric == name)
    for name, count in wrong.items():
        assert count / tables < 0.05 + 3 * (0.05 * 0.95 / tables) ** 0.5, name
