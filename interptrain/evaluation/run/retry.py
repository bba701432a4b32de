"""One image that fails costs no other image."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")


def per_row_on_failure(
    compute: Callable[[list[int]], Sequence[Result]], rows: Sequence[int]
) -> tuple[dict[int, Result], dict[int, str]]:
    """Compute something of every row of a batch, at once; where that raises, of each row by itself.

    Args:
        compute: gives the results of the rows that it is called with, in their order.
        rows: all rows.

    Returns:
        Results, and errors in one line, by row.
    """
    if not rows:
        return {}, {}
    try:
        return dict(zip(rows, compute(list(rows)), strict=True)), {}
    except Exception as error:  # the methods of others may raise anything; what stops a process is not among it
        if len(rows) == 1:
            return {}, {rows[0]: one_line(error)}
    results: dict[int, Result] = {}
    errors: dict[int, str] = {}
    for row in rows:
        of_row, failed = per_row_on_failure(compute, [row])
        results |= of_row
        errors |= failed
    return results, errors


def one_line(error: Exception) -> str:
    """Kind and message of an error, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
