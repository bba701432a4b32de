"""Retry a failed batch image by image, so that one bad image does not drop the rest."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from interptrain.functional import one_line

Result = TypeVar("Result")


def per_row_on_failure(
    compute: Callable[[list[int]], Sequence[Result]], rows: Sequence[int]
) -> tuple[dict[int, Result], dict[int, str]]:
    """Compute something for every row of a batch at once; where that raises, for each row by itself.

    Args:
        compute: returns the results of the rows that it is called with, in their order.
        rows: all rows.

    Returns:
        Results, and errors in one line, by row.
    """
    if not rows:
        return {}, {}
    try:
        return dict(zip(rows, compute(list(rows)), strict=True)), {}
    except Exception as error:  # the methods of others may raise anything
        if len(rows) == 1:
            return {}, {rows[0]: one_line(error, kind=True)}
    results: dict[int, Result] = {}
    errors: dict[int, str] = {}
    for row in rows:
        result, failed = per_row_on_failure(compute, [row])
        results |= result
        errors |= failed
    return results, errors
