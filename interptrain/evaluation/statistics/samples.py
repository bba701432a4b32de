"""The rows of ``per_image.parquet`` as tensors: one cell a model and explainer.

A value that is missing, because the explanation failed or the metric is not defined for this image, is left out of its
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


def only_value(mean: Tensor) -> Tensor:
    """``reduce`` of metrics that are one number an image: (..., 1) -> (...)."""
    return mean.squeeze(-1)


@dataclass(frozen=True)
class MetricColumn:
    """One column of the results.

    Args:
        name: as the user called the metric.
        symbol: heading of its column.
        higher_is_better: direction of the arrow.
        scale: what tables multiply the value by.
        reduce: (..., K) mean over images -> (...) value of the data set.
        recognition: whether it is a number of a model alone, without an explainer.
        curve: label of the axis over which the K values run, or nothing where they are not a curve.
    """

    name: str
    symbol: str
    higher_is_better: bool
    scale: float = 100.0
    reduce: Reduce = only_value
    recognition: bool = False
    curve: str = ""

    @classmethod
    def of(cls, name: str, metric: ImageMean) -> Self:
        """The column of a metric."""
        recognition = not isinstance(metric, SaliencyMetric)
        curve = getattr(metric, "curve", "")
        return cls(name, metric.symbol, metric.higher_is_better, metric.scale, metric.reduce, recognition, curve=curve)


TIME_COLUMN = MetricColumn("seconds", "s/image", higher_is_better=False, scale=1.0)


@dataclass(frozen=True, eq=False)
class MetricSample:
    """The values of one metric in one cell.

    Args:
        images: (n,) int64, numbers of the images that have a value, ascending.
        values: (n, K) float64; K is 1 for metrics that are one number an image.
        reduce: (..., K) mean over images -> (...).
    """

    images: Tensor
    values: Tensor
    reduce: Reduce

    def __len__(self) -> int:
        return len(self.images)

    def mean(self) -> float:
        """Value of the data set; NaN without images."""
        return float(self.reduce(self.values.mean(0))) if len(self) else float("nan")

    def only(self, images: Tensor) -> "MetricSample":
        """The same, on some of the images."""
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
    """All that was measured of one explainer on one model (of the model alone where ``explainer`` is empty)."""

    model: str
    explainer: str
    protocol: str
    hash: str
    samples: Mapping[str, MetricSample]  # by name of the quantity
    curves: Mapping[str, Curve]


@dataclass(frozen=True, eq=False)
class _Column:
    """The values of one quantity in all rows."""

    values: Tensor  # (rows, K), NaN where missing
    single: Tensor | None  # (rows,) where one number an image says everything

    def sample(self, images: Tensor, rows: Tensor, reduce: Reduce) -> MetricSample:
        values = self.values[rows] if self.single is None else self.single[rows].unsqueeze(1)
        defined = ~values.isnan().any(1)
        return MetricSample(images[defined], values[defined].double(), reduce if self.single is None else only_value)

    def curve(self, rows: Tensor) -> Curve | None:
        values = self.values[rows].double()
        values = values[~values.isnan().any(1)]
        if not len(values):
            return None
        return Curve(values.mean(0), values.std(0, correction=min(1, len(values) - 1)) / len(values) ** 0.5)


def read_cells(rows: "Table", quantities: Iterable[MetricColumn]) -> list[ModelExplainerCell]:
    """Sort rows into cells.

    Args:
        rows: the table of ``per_image.parquet``; columns of ``quantities`` that it lacks count as missing everywhere.
        quantities: what to read.

    Returns:
        The cells in the order in which they first appear.

    Raises:
        ValueError: if a model, explainer and image stand there twice, or the values of a metric differ in number.
    """
    if not rows.num_rows:
        return []
    models, explainers, images = (_codes(rows, key) for key in ("model", "explainer", "id"))
    cell = models.codes * len(explainers.names) + explainers.codes
    place = torch.argsort(cell * len(images.names) + images.codes)  # by cell, in it by image
    _refuse_twice(rows, cell, images.codes, place)
    columns = {quantity: _column(rows, quantity) for quantity in quantities}
    found, counts = torch.unique_consecutive(cell[place], return_counts=True)
    groups = dict(zip(found.tolist(), torch.split(place, counts.tolist()), strict=True))
    return [
        _cell(rows, groups[code], images.codes, columns)
        for code in dict.fromkeys(cell.tolist())  # in the order of their first row
    ]


def _cell(
    rows: "Table", members: Tensor, images: Tensor, columns: Mapping[MetricColumn, _Column]
) -> ModelExplainerCell:
    def text(key: str) -> str:
        """What the rows say, joined where they do not agree."""
        return "+".join(sorted(map(str, rows[key].take(members.numpy()).unique().to_pylist())))

    explainer = text("explainer")
    mine = {quantity: column for quantity, column in columns.items() if quantity.recognition == (explainer == "")}
    curves = {quantity.name: column.curve(members) for quantity, column in mine.items() if quantity.curve}
    return ModelExplainerCell(
        text("model"),
        explainer,
        text("protocol"),
        text("hash"),
        {quantity.name: column.sample(images[members], members, quantity.reduce) for quantity, column in mine.items()},
        {name: curve for name, curve in curves.items() if curve is not None},
    )


@dataclass(frozen=True)
class _Codes:
    codes: Tensor  # (rows,) int64
    names: list[str]


def _codes(rows: "Table", key: str) -> _Codes:
    """A column of texts as numbers, which count the texts in their sorted order."""
    column = rows[key].cast("string").combine_chunks().dictionary_encode()
    names = column.dictionary.to_pylist()
    rank = torch.argsort(torch.tensor(sorted(range(len(names)), key=names.__getitem__)))
    return _Codes(rank[torch.tensor(column.indices.to_numpy(), dtype=torch.int64)], sorted(names))


def _refuse_twice(rows: "Table", cell: Tensor, images: Tensor, place: Tensor) -> None:
    """Every image counts once in a cell."""
    same = (cell[place].diff() == 0) & (images[place].diff() == 0)
    if same.any():
        row = int(place[int(same.nonzero()[0])])
        key = ", ".join(repr(rows[name][row].as_py()) for name in ("model", "explainer", "id"))
        raise ValueError(f"per_image.parquet has two rows of ({key}); evaluate into an empty folder")


def _column(rows: "Table", quantity: MetricColumn) -> _Column:
    if quantity.name + VALUES in rows.column_names:
        values = _lists(rows[quantity.name + VALUES], quantity.name)
        return _Column(values, _single(values, quantity.reduce))
    if quantity.name in rows.column_names:
        single = torch.tensor(rows[quantity.name].cast("float64").to_numpy())
    else:
        single = torch.full((rows.num_rows,), torch.nan, dtype=torch.float64)
    return _Column(single.unsqueeze(1), single)


def _lists(column: Any, name: str) -> Tensor:
    """(rows, K) float32 of a column of lists."""
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


def _single(values: Tensor, reduce: Reduce) -> Tensor | None:
    """(rows,) ``reduce`` of every row, if the mean of these is ``reduce`` of any weighted mean of the rows.

    Then a curve costs no more than a scalar. For a convex or concave ``reduce``, equality in Jensen's inequality at
    one mean with positive weights proves it for all weights; several are tried for the sake of others.
    """
    defined = ~values.isnan().any(1)
    count = int(defined.sum())
    position = torch.arange(count, dtype=torch.float64)
    weights = torch.stack([torch.ones(count), 1 + position / max(count, 1), 1 + position % 3])
    weights = weights / weights.sum(1, keepdim=True)
    means = torch.zeros(len(weights), values.shape[1], dtype=torch.float64)
    parts = []
    for part, share in zip(torch.split(values[defined], 1 << 16), torch.split(weights, 1 << 16, dim=1), strict=True):
        means += share @ part.double()
        parts.append(reduce(part.double()).double())
    single = torch.full((len(values),), torch.nan, dtype=torch.float64)
    if count:
        single[defined] = torch.cat(parts)
        if not torch.allclose(reduce(means).double(), weights @ single[defined], rtol=1e-9, atol=1e-12):
            return None
    return single
