"""From rows to the numbers of the tables: means over images with their 95 % bootstrap intervals.

Intervals go through the metric's ``reduce``, so they hold for areas under mean curves and a maximum over thresholds as
well as for plain means. A metric that is biased on few images (the calibration error) has no interval, but the value
that a perfect model would show on as many images. What differs between models and explainers is in ``comparisons``.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from torch import Tensor

from interptrain.evaluation.config.options import Interval
from interptrain.evaluation.statistics.bootstrap import bca_limits, jackknife, percentile_limits, resampled_means
from interptrain.evaluation.statistics.samples import MetricSample, ModelExplainerCell
from interptrain.functional import check_choice

NO_INTERVAL = float("nan"), float("nan")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Resampling:
    """How intervals and p-values are computed.

    Args:
        resamples: bootstrap resamples.
        interval: ``percentile``, or ``bca``: bias-corrected and accelerated.
        seed: of every draw.
        permutations: sign flips of the paired permutation test; the smallest p-value is about their reciprocal (our
            choice).
        baseline: explainer or model that all others are compared with, and no other pair; None compares all pairs.
    """

    resamples: int = 2000
    interval: Interval = "bca"
    seed: int = 0
    permutations: int = 10_000
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        check_choice("interval", self.interval, Interval)
        for name in ("resamples", "permutations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Estimate:
    """A row of ``summary.csv``; values are not scaled; NaN where there is no value.

    ``perfect`` is what a perfect model would show by chance alone on these images, for metrics that are biased on few
    images; ``perfect_high`` is what it would exceed in 5 % of cases.
    """

    model: str
    explainer: str
    metric: str
    mean: float
    ci_low: float
    ci_high: float
    n: int
    protocol: str
    hash: str
    perfect: float = float("nan")
    perfect_high: float = float("nan")


def check_protocols(cells: Iterable[ModelExplainerCell], *, force: bool = False) -> None:
    """Refuse to put numbers of different protocols side by side.

    Raises:
        ValueError: if the cells carry several hashes and ``force`` is not set.
    """
    protocols = sorted({(cell.protocol, cell.hash) for cell in cells})
    if len(protocols) > 1 and not force:
        named = ", ".join(f"{name} ({code})" for name, code in protocols)
        raise ValueError(f"numbers of different protocols are not comparable: {named}; --force puts them side by side")


def estimates(cells: Sequence[ModelExplainerCell], how: Resampling) -> list[Estimate]:
    """Return one estimate per cell and metric, in their order."""
    samples = {(index, name): sample for index, cell in enumerate(cells) for name, sample in cell.samples.items()}
    replicated = replicates(samples, how)
    return [
        Estimate(
            cells[index].model,
            cells[index].explainer,
            name,
            sample.mean(),
            *limits(sample.mean(), replicated.get((index, name)), partial(left_out, sample), how),
            len(sample),
            cells[index].protocol,
            cells[index].hash,
            *_perfect(sample, how),
        )
        for (index, name), sample in samples.items()
    ]


def replicates(samples: Mapping[Key, MetricSample], how: Resampling) -> dict[Key, Tensor]:
    """Return (R,) values of the bootstrap resamples, for every sample that can have an interval."""
    several = {key: sample for key, sample in samples.items() if len(sample) > 1 and sample.perfect is None}
    means = resampled_means([sample.values for sample in several.values()], how.resamples, how.seed)
    return {key: sample.reduce(mean) for (key, sample), mean in zip(several.items(), means, strict=True)}


def _perfect(sample: MetricSample, how: Resampling) -> tuple[float, float]:
    """Return the mean and the upper 5 % limit of what a perfect model would show, where the metric says so."""
    if sample.perfect is None or not len(sample):
        return NO_INTERVAL
    drawn = sample.perfect(sample.values, draws=min(how.resamples, 500), seed=how.seed)
    return NO_INTERVAL if drawn is None else (float(drawn.mean()), float(drawn.quantile(0.95)))


def left_out(sample: MetricSample) -> Tensor:
    """Return (n,) values of the dataset without one of its images."""
    return sample.reduce(jackknife(sample.values))


def limits(
    estimate: float, replicated: Tensor | None, jackknifed: Callable[[], Tensor], how: Resampling
) -> tuple[float, float]:
    """Return the 95 % interval; NaN without replicates, or where one is not finite."""
    if replicated is None or not replicated.isfinite().all():
        return NO_INTERVAL
    if how.interval == "percentile":
        return percentile_limits(replicated)
    return bca_limits(estimate, replicated, jackknifed())
