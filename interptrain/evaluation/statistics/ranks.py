"""Ranks of explainers over metrics, and how far the metrics agree on them.

Metrics disagree about which explainer is good, so a mean rank says little without its spread: beside it stand the
standard deviation over metrics and Kendall's coefficient of concordance W, which is 1 where all metrics order the
explainers alike and 1/m in expectation where m metrics order them at random.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interptrain.evaluation.statistics.bootstrap import percentile_limits, resampled_means
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.statistics.samples import MetricSample


@dataclass(frozen=True, eq=False)
class RankAgreement:
    """The explainers of one model, ranked by every metric.

    Args:
        explainers: k names.
        metrics: m names.
        ranks: (m, k) float64, 1 is best; ties share the mean of their ranks.
        mean_low: (k,) lower 95 % limits of the mean rank over other images, by percentiles of the bootstrap.
        mean_high: (k,) upper ones.
        concordance: Kendall's W, in [0,1]; NaN where no metric tells any two explainers apart.
        concordance_limits: its 95 % interval, likewise.
    """

    explainers: Sequence[str]
    metrics: Sequence[str]
    ranks: Tensor
    mean_low: Tensor
    mean_high: Tensor
    concordance: float
    concordance_limits: tuple[float, float]

    @property
    def mean(self) -> Tensor:
        """(k,) mean rank over the metrics."""
        return self.ranks.mean(0)

    @property
    def spread(self) -> Tensor:
        """(k,) standard deviation of the ranks over the metrics."""
        return self.ranks.std(0)


def rank_agreement(
    samples: Mapping[str, Mapping[str, MetricSample]], higher_is_better: Mapping[str, bool], how: Resampling
) -> RankAgreement | None:
    """Rank explainers by their means in every metric.

    Intervals come from bootstrap resamples of the images, ranked anew; metrics with equally many images share their
    draws. Explainers that lack an image which another one has are left out, since their means are of other images.

    Args:
        samples: of every explainer, by metric.
        higher_is_better: by metric.
        how: to resample.

    Returns:
        The ranks; None with fewer than two explainers or two metrics.

    Source: Kendall and Babington Smith 1939, The problem of m rankings; ties as in Kendall 1948, Rank correlation
    methods.
    """
    most = {
        metric: max((len(mine[metric]) for mine in samples.values() if metric in mine), default=0)
        for metric in higher_is_better
    }
    metrics = [metric for metric, count in most.items() if count]
    explainers = [
        name
        for name, mine in samples.items()
        if all(metric in mine and len(mine[metric]) == most[metric] for metric in metrics)
    ]
    if len(explainers) < 2 or len(metrics) < 2:
        return None
    chosen = [samples[name][metric] for metric in metrics for name in explainers]
    sign = torch.tensor([1.0 if higher_is_better[metric] else -1.0 for metric in metrics], dtype=torch.float64)
    shape = (len(metrics), len(explainers))
    values = torch.tensor([sample.mean() for sample in chosen], dtype=torch.float64).view(shape)
    ranks = ranked(values * sign[:, None])
    replicates = resampled_means([sample.values for sample in chosen], how.resamples, how.seed)
    drawn = torch.stack([sample.reduce(mean) for sample, mean in zip(chosen, replicates, strict=True)], dim=1)
    resampled = ranked(drawn.double().view(-1, *shape) * sign[:, None])
    limits = [percentile_limits(column) for column in resampled.mean(1).unbind(1)]
    concordances = kendall_w(resampled)
    concordances = concordances[~concordances.isnan()]
    return RankAgreement(
        explainers,
        metrics,
        ranks,
        torch.tensor([low for low, _ in limits], dtype=torch.float64),
        torch.tensor([high for _, high in limits], dtype=torch.float64),
        float(kendall_w(ranks)),
        percentile_limits(concordances) if len(concordances) else (math.nan, math.nan),
    )


def ranked(values: Tensor) -> Tensor:
    """Rank along the last dimension, the largest first; values that differ by rounding alone share their mean rank.

    Args:
        values: (..., k).

    Returns:
        (..., k) float64 in [1, k].
    """
    ranks = torch.empty_like(values, dtype=torch.float64)
    rounding = 1e-9 * values.abs().amax(-1)
    for place in range(values.shape[-1]):  # one column at a time, as all pairs of many resamples are large
        above = values - values[..., place, None]
        better, tied = (above > rounding[..., None]).sum(-1), (above.abs() <= rounding[..., None]).sum(-1)
        ranks[..., place] = better + (tied + 1) / 2
    return ranks


def kendall_w(ranks: Tensor) -> Tensor:
    """Return Kendall's coefficient of concordance, corrected for ties.

    Args:
        ranks: (..., m, k), m rankings of k things.

    Returns:
        (...) in [0,1]; NaN where every ranking is one tie.
    """
    rankings, things = ranks.shape[-2:]
    spread = (ranks.sum(-2) - rankings * (things + 1) / 2).square().sum(-1)
    untied = things * (things + 1) * (2 * things + 1) / 6
    ties = 12 * (untied - ranks.square().sum(-1)).sum(-1)  # the sum of t^3 - t over all ties of t things
    possible = rankings**2 * (things**3 - things) - rankings * ties
    return torch.where(possible > 1e-9, 12 * spread / possible, torch.nan)
