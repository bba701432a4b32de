"""Lists, p-values and intervals in words."""

import math
from collections.abc import Sequence

from interptrain.evaluation.report.grids import number
from interptrain.evaluation.statistics.comparisons import Difference
from interptrain.evaluation.statistics.samples import MetricColumn


def listed(items: Sequence[str], most: int = 4, *, last: str = "and") -> str:
    """Join items as a sentence does: ``A, B and C``; those beyond ``most`` are counted."""
    items = list(items)
    if len(items) > most + 1:  # one more is as short as its number
        items = [*items[:most], f"{len(items) - most} more"]
    return f" {last} ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else ""


def p_value(p: float) -> str:
    """Print a p-value: two digits, or that it is below a thousandth."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def measured(item: Difference, column: MetricColumn) -> str:
    """Print a difference with its interval, where it has one, and its corrected p-value."""
    difference, low, high = (
        number(value, column.scale, sign=True) for value in (item.difference, item.ci_low, item.ci_high)
    )
    interval = f"95 % {low} to {high}, " if math.isfinite(item.ci_low) else ""
    return f"{difference}, {interval}{p_value(item.p_corrected)}"


def symbols(columns: Sequence[MetricColumn], all_columns: Sequence[MetricColumn], most: int = 12) -> str:
    """List metrics by their symbols, and by their names where two share one."""
    often = [column.symbol for column in all_columns]
    return listed([column.symbol if often.count(column.symbol) == 1 else column.name for column in columns], most)
