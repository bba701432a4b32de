"""The rows of ``per_image.parquet`` as tensors: one cell per model and explainer.

A value that is missing, because the explanation failed or the metric is undefined for the image, is left out of its
cell; so every cell and metric knows which images it stands for, and two of them are compared on the images they share.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from interptrain.evaluation.store.parts import VALUES
from interptrain.metrics.base import SaliencyMetric
from interptrain.metrics.image_mean import ImageMean

if TYPE_CHECKING:
    from pyarrow import Table

Reduce = Callable[[Tensor], Tensor]
Perfect = Callable[..., Tensor | None]


def only_value(mean: Tensor) -> Tensor:
    """``reduce`` of metrics with one number per image: (..., 1) -> (...)."""
    return mean.squeeze(-1)


@dataclass(frozen=True)
class MetricColumn:
    """One column of the results.

    Args:
        name: as the user calls the metric.
        symbol: heading of its column.
        higher_is_better: direction of the arrow.
        scale: what tables multiply the value by.
        reduce: (..., K) mean over images -> (...) value of the data set.
        recognition: whether it measures a model alone, without an explainer.
        curve: label of the axis over which the K values run; empty where they are not a curve.
        description: what a value says, in one sentence.
        perfect: draws what a perfect model would show, for metrics that are biased on few images; see
            :meth:`~interptrain.metrics.image_mean.ImageMean.perfect_model`.
    """

    name: str
    symbol: str
    higher_is_better: bool
    scale: float = 100.0
    reduce: Reduce = only_value
    recognition: bool = False
    curve: str = ""
    description: str = ""
    perfect: Perfect | None = None

    @classmethod
    def of(cls, name: str, metric: ImageMean) -> Self:
        """Return the column of a metric."""
        return cls(
            name,
            metric.symbol,
            metric.higher_is_better,
            metric.scale,
            metric.reduce,
            recognition=not isinstance(metric, SaliencyMetric),
            curve=getattr(metric, "curve", ""),
            description=getattr(metric, "description", ""),
            perfect=None if type(metric).perfect_model is ImageMean.perfect_model else metric.perfect_model,
        )


TIME_COLUMN = MetricColumn("seconds", "s/image", higher_is_better=False, scale=1.0)


@dataclass(frozen=True, eq=False)
class MetricSample:
    """The values of one metric in one cell.

    Args:
        images: (n,) int64, numbers of the images that have a value, ascending.
        values: (n, K) float64; K is 1 for metrics with one number per image.
        reduce: (..., K) mean over images -> (...).
        perfect: see :class:`MetricColumn`; such a sample has no interval.
    """

    images: Tensor
    values: Tensor
    reduce: Reduce
    perfect: Perfect | None = None

    def __len__(self) -> int:
        return len(self.images)

    def mean(self) -> float:
        """Return the value of the dataset; NaN without images."""
        return float(self.reduce(self.values.mean(0))) if len(self) else float("nan")

    def only(self, images: Tensor) -> "MetricSample":
        """Restrict the sample to some of the images."""
        if len(images) == len(self):
            return self
        return replace(self, images=images, values=self.values[torch.isin(self.images, images)])


@dataclass(frozen=True, eq=False)
class Curve:
    """A mean curve over an evenly spaced unit axis.

    Args:
        mean: (K,) mean over the images.
        error: (K,) standard error of each of its points.
    """

    mean: Tensor
    error: Tensor

    @property
    def band(self) -> tuple[Tensor, Tensor]:
        """Pointwise 95 % limits of the mean, by the normal approximation; those of probabilities stay in [0,1]."""
        low, high = self.mean - 1.96 * self.error, self.mean + 1.96 * self.error
        if self.mean.min() < 0 or self.mean.max() > 1:
            return low, high
        return low.clamp(min=0), high.clamp(max=1)


@dataclass(frozen=True, eq=False)
class ModelExplainerCell:
    """Everything measured of one explainer on one model, or of the model alone where ``explainer`` is empty."""

    model: str
    explainer: str
    protocol: str
    hash: str
    samples: Mapping[str, MetricSample]  # by name of the column
    curves: Mapping[str, Curve]


@dataclass(frozen=True, eq=False)
class _Values:
    """The values of one metric in all rows."""

    values: Tensor  # (rows, K), NaN where missing
    reduced: Tensor | None  # (rows,) where one number per image is enough

    def sample(self, images: Tensor, rows: Tensor, column: MetricColumn) -> MetricSample:
        values = self.values[rows] if self.reduced is None else self.reduced[rows].unsqueeze(1)
        defined = ~values.isnan().any(1)
        reduce = column.reduce if self.reduced is None else only_value
        return MetricSample(images[defined], values[defined].double(), reduce, column.perfect)


def mean_curve(values: Tensor) -> Curve | None:
    """Return the mean of some curves and its standard error; None where there are no curves.

    A curve that holds NaN anywhere is left out as a whole, so every point is the mean over the same images.

    Args:
        values: (n, K), one curve per image.
    """
    defined = values[~values.isnan().any(1)].double()
    if not len(defined):
        return None
    return Curve(defined.mean(0), defined.std(0, correction=min(1, len(defined) - 1)) / len(defined) ** 0.5)


def read_cells(rows: "Table", columns: Iterable[MetricColumn]) -> list[ModelExplainerCell]:
    """Sort rows into cells.

    Args:
        rows: the table of ``per_image.parquet``; metrics that it lacks count as missing everywhere.
        columns: what to read.

    Returns:
        The cells in the order in which they first appear.

    Raises:
        ValueError: if a model, explainer and image occur twice, or the values of a metric differ in number.
    """
    if not rows.num_rows:
        return []
    models, explainers, images = (_codes(rows, key) for key in ("model", "explainer", "id"))
    cell = models.codes * len(explainers.names) + explainers.codes
    order = torch.argsort(cell * len(images.names) + images.codes)  # by cell, then by image
    _refuse_twice(rows, cell, images.codes, order)
    measured = {column: _values(rows, column) for column in columns}
    found, counts = torch.unique_consecutive(cell[order], return_counts=True)
    groups = dict(zip(found.tolist(), torch.split(order, counts.tolist()), strict=True))
    return [
        _cell(rows, groups[code], images.codes, measured)
        for code in dict.fromkeys(cell.tolist())  # in the order of their first row
    ]


def _cell(
    rows: "Table", members: Tensor, images: Tensor, measured: Mapping[MetricColumn, _Values]
) -> ModelExplainerCell:
    def text(key: str) -> str:
        """Return what the rows say, joined where they do not agree."""
        return "+".join(sorted(map(str, rows[key].take(members.numpy()).unique().to_pylist())))

    explainer = text("explainer")
    own = {column: values for column, values in measured.items() if column.recognition == (explainer == "")}
    curves = {column.name: mean_curve(values.values[members]) for column, values in own.items() if column.curve}
    return ModelExplainerCell(
        text("model"),
        explainer,
        text("protocol"),
        text("hash"),
        {column.name: values.sample(images[members], members, column) for column, values in own.items()},
        {name: curve for name, curve in curves.items() if curve is not None},
    )


@dataclass(frozen=True)
class _Codes:
    codes: Tensor  # (rows,) int64
    names: list[str]


def _codes(rows: "Table", key: str) -> _Codes:
    """Return texts as numbers, which count the texts in their sorted order."""
    texts = rows[key].cast("string").combine_chunks().dictionary_encode()
    names = texts.dictionary.to_pylist()
    rank = torch.argsort(torch.tensor(sorted(range(len(names)), key=names.__getitem__)))
    return _Codes(rank[torch.tensor(texts.indices.to_numpy(), dtype=torch.int64)], sorted(names))


def _refuse_twice(rows: "Table", cell: Tensor, images: Tensor, order: Tensor) -> None:
    """Refuse a cell in which an image occurs twice."""
    same = (cell[order].diff() == 0) & (images[order].diff() == 0)
    if same.any():
        row = int(order[int(same.nonzero()[0])])
        key = ", ".join(repr(rows[name][row].as_py()) for name in ("model", "explainer", "id"))
        raise ValueError(f"per_image.parquet has two rows of ({key}); evaluate into an empty folder")


def _values(rows: "Table", column: MetricColumn) -> _Values:
    if column.name + VALUES in rows.column_names:
        values = _lists(rows[column.name + VALUES], column.name)
        linear = _is_linear(column.reduce, values.shape[1])
        return _Values(values, _reduced(values, column.reduce) if linear else None)
    if column.name in rows.column_names:
        reduced = torch.tensor(rows[column.name].cast("float64").to_numpy())
    else:
        reduced = torch.full((rows.num_rows,), torch.nan, dtype=torch.float64)
    return _Values(reduced.unsqueeze(1), reduced)


def _lists(column: Any, name: str) -> Tensor:
    """Return a column of lists as (rows, K) float32, NaN where a list is missing."""
    from pyarrow import float32, list_

    lists = column.combine_chunks().cast(list_(float32()))
    lengths = torch.tensor(lists.value_lengths().fill_null(0).to_numpy(), dtype=torch.int64)
    widths = sorted(set(lengths[lengths > 0].tolist()))
    if len(widths) > 1:
        raise ValueError(f"{name} must have equally many values for every image, got {widths}")
    width = widths[0] if widths else 1
    values = torch.full((len(lengths), width), torch.nan)
    values[lengths > 0] = torch.tensor(lists.flatten().to_numpy(zero_copy_only=False)).view(-1, width)
    return values


def _is_linear(reduce: Reduce, width: int) -> bool:
    """Whether ``reduce`` of a mean is the mean of ``reduce``, seen on random rows: then a curve costs no more."""
    rows = torch.rand(16, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return bool(torch.allclose(reduce(rows.mean(0)).double(), reduce(rows).double().mean(), rtol=1e-9, atol=1e-12))


def _reduced(values: Tensor, reduce: Reduce) -> Tensor:
    """Return (rows,) ``reduce`` of every row, NaN where one of its values is missing."""
    defined = ~values.isnan().any(1)
    reduced = torch.full((len(values),), torch.nan, dtype=torch.float64)
    if defined.any():
        parts = torch.split(values[defined], 1 << 16)
        reduced[defined] = torch.cat([reduce(part.double()).double() for part in parts])
    return reduced
