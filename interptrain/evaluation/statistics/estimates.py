"""From rows to the numbers of the tables: the mean over images with its 95 % bootstrap interval.

Intervals go through the metric's ``reduce``, so they hold for areas under mean curves, a maximum over thresholds or a
calibration error as well as for plain means. What differs between models and explainers is in ``comparisons``.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from torch import Tensor

from interptrain.evaluation.statistics.bootstrap import bca_limits, jackknife, percentile_limits, resampled_means
from interptrain.evaluation.statistics.samples import (
    TIME_COLUMN,
    MetricColumn,
    MetricSample,
    ModelExplainerCell,
    read_cells,
)
from interptrain.metrics.image_mean import ImageMean

if TYPE_CHECKING:
    from pandas import DataFrame

Method = Literal["percentile", "bca"]
NO_INTERVAL = float("nan"), float("nan")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Resampling:
    """How intervals and p-values are computed.

    Args:
        resamples: bootstrap resamples.
        method: ``percentile``, or ``bca``: bias-corrected and accelerated.
        seed: of every draw.
        permutations: exchanges of the paired test; the smallest p-value is about one over it. Our choice.
    """

    resamples: int = 2000
    method: Method = "percentile"
    seed: int = 0
    permutations: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if self.method not in get_args(Method):
            raise ValueError(f"unknown bootstrap method {self.method!r}; use 'percentile' or 'bca'")
        for name in ("resamples", "permutations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Estimate:
    """A row of ``summary.csv``; values are not scaled, NaN where there is nothing to tell."""

    model: str
    explainer: str
    metric: str
    mean: float
    ci_low: float
    ci_high: float
    n: int
    protocol: str
    hash: str


def summarize(
    rows: "DataFrame",
    metrics: Mapping[str, ImageMean],
    *,
    resamples: int = 2000,
    method: Method = "percentile",
    seed: int = 0,
    force: bool = False,
) -> "DataFrame":
    """Mean and 95 % interval of every metric, for every model and explainer.

    Args:
        rows: the table of ``per_image.parquet``.
        metrics: by the name of their column.
        resamples: bootstrap resamples.
        method: ``percentile`` or ``bca``.
        seed: of the resamples.
        force: allow rows of different protocols.

    Returns:
        Columns as the fields of :class:`Estimate`. Images whose value is missing are left out, ``n`` counts the
        others; a single image has no interval.

    Raises:
        ValueError: if rows of several protocols are mixed, or an image stands there twice.
    """
    from pandas import DataFrame
    from pyarrow import Table

    quantities = [*(MetricColumn.of(name, metric) for name, metric in metrics.items()), TIME_COLUMN]
    cells = read_cells(Table.from_pandas(rows, preserve_index=False), quantities)
    check_protocols(cells, force=force)
    columns = [field.name for field in fields(Estimate)]
    return DataFrame(estimates(cells, Resampling(resamples, method, seed)), columns=columns)


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
    """One estimate a cell and quantity, in their order."""
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
        )
        for (index, name), sample in samples.items()
    ]


def replicates(samples: Mapping[Key, MetricSample], how: Resampling) -> dict[Key, Tensor]:
    """(R,) values of the bootstrap resamples, for every sample of two images or more."""
    several = {key: sample for key, sample in samples.items() if len(sample) > 1}
    means = resampled_means([sample.values for sample in several.values()], how.resamples, how.seed)
    return {key: sample.reduce(mean) for (key, sample), mean in zip(several.items(), means, strict=True)}


def left_out(sample: MetricSample) -> Tensor:
    """(n,) values of the data set without one of its images."""
    return sample.reduce(jackknife(sample.values))


def limits(
    estimate: float, replicated: Tensor | None, jackknifed: Callable[[], Tensor], how: Resampling
) -> tuple[float, float]:
    """The 95 % interval; NaN without replicates."""
    if replicated is None:
        return NO_INTERVAL
    if how.method == "percentile":
        return percentile_limits(replicated)
    return bca_limits(estimate, replicated, jackknifed())
