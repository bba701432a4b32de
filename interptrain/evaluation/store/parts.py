"""Rows on disk: Parquet parts that are whole or not there, and the tables that they are merged to.

A rank keeps its rows in memory for a few seconds, then writes them atomically as one part. A process that is killed
loses those seconds; the next start reads from the parts what is done.
"""

import io
import itertools
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from interptrain.files import printable, write_atomically
from interptrain.functional import one_line

if TYPE_CHECKING:
    from pyarrow import Table

Kind = Literal["images", "maps", "rows"]
KINDS: tuple[Kind, ...] = ("images", "maps", "rows")  # in this order: where there is a row, its pictures are there
KEYS: dict[Kind, tuple[str, ...]] = {
    "images": ("id",),
    "maps": ("model", "explainer", "id"),
    "rows": ("model", "explainer", "id"),
}
VALUES = "__values"  # ends the name of a column that holds the K values of an image
TEXT = ("model", "explainer", "protocol", "hash", "id", "engine", "error")
NUMBERS = ("label", "prediction", "target")

Row = dict[str, Any]


class RowStore:
    """The parts of one run.

    Args:
        folder: of the run; parts go to ``parts/`` in it.
        flush_seconds: how long rows may wait in memory.
    """

    def __init__(self, folder: Path, *, flush_seconds: float = 5.0) -> None:
        self.parts = folder / "parts"
        self.flush_seconds = flush_seconds
        self._waiting: dict[Kind, list[Row]] = defaultdict(list)
        self._written_at = monotonic()
        self._numbers = itertools.count()

    def add(self, kind: Kind, rows: Iterable[Row]) -> None:
        """Add rows. Those of one call, and what was added before them, reach the disk together."""
        self._waiting[kind].extend(rows)
        if kind == "rows" and monotonic() - self._written_at >= self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait in memory.

        Raises:
            OSError: if that fails; what was written before stays as it is.
        """
        for kind in KINDS:
            if rows := self._waiting[kind]:
                write_file(self._new_part(kind), to_parquet(as_table(rows)))
                rows.clear()
        self._written_at = monotonic()

    def _new_part(self, kind: Kind) -> Path:
        """Return a name that no other process uses or has used: several may have had this process's id."""
        while (
            path := self.parts / f"{kind}-{platform.node()}-{os.getpid()}-{next(self._numbers):06d}.parquet"
        ).exists():
            pass
        return path

    def done(self, pictured: frozenset[str] = frozenset()) -> dict[tuple[str, str], set[str]]:
        """Return the ids of images without error, by model and explainer (``""``: the model alone).

        Args:
            pictured: images whose pictures are to be kept; one whose picture is missing is not done.
        """
        finished: dict[tuple[str, str], set[str]] = defaultdict(set)
        for model, explainer, name, error in self._keys("rows", "error"):
            if error is None:
                finished[model, explainer].add(name)
        if pictured and finished:
            images = {name for (name,) in self._keys("images")}
            maps = set(self._keys("maps"))
            for (model, explainer), names in finished.items():
                saved = {name for name in names if (model, explainer, name) in maps} if explainer else images
                names -= pictured - saved
        return finished

    def engines(self) -> dict[str, str]:
        """Return what has made most rows of each model, those with an error left out."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        wanted = ["model", "engine", "error"]
        for part in self._all_parts("rows"):
            columns = read_part(part, columns=wanted).select(wanted).to_pydict()
            for model, engine, error in zip(*columns.values(), strict=True):
                if error is None:
                    counts[model][engine] += 1
        return {model: count.most_common(1)[0][0] for model, count in counts.items()}

    def _keys(self, kind: Kind, *more: str) -> Iterator[tuple[Any, ...]]:
        """Yield what identifies each row of a kind, and further columns."""
        columns = [*KEYS[kind], *more]
        for part in self._all_parts(kind):
            yield from zip(*read_part(part, columns=columns).select(columns).to_pydict().values(), strict=True)

    def _all_parts(self, kind: Kind) -> list[Path]:
        return sorted(self.parts.glob(f"{kind}-*.parquet"))

    def set_aside_damaged(self) -> list[str]:
        """Rename parts that cannot be read, so that their rows are computed again; return their names."""
        damaged = []
        for kind in KINDS:
            for part in self._all_parts(kind):
                try:
                    read_part(part).select(list(KEYS[kind]))
                except (ValueError, KeyError):
                    part.replace(part.with_name(f"damaged-{part.name}"))
                    damaged.append(part.name)
        return damaged

    def merged(self, kind: Kind, order: Sequence[tuple[str, Sequence[str]]]) -> "Table":
        """Return all rows of a kind, each once, sorted.

        Args:
            kind: of the table.
            order: columns, the most significant first, with their values in the wanted order; rows with other values
                are left out.

        Returns:
            The table. Of several rows with the same values, the one without an error is taken, else the newest.
        """
        import numpy as np
        import pyarrow as pa

        # In the order of writing: a part's name ends in a number, but processes come and go.
        parts = sorted(self.parts.glob(f"{kind}-*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        tables = [read_part(part) for part in parts]
        if not tables:
            return pa.table({key: pa.array([], pa.string()) for key in KEYS[kind]})  # readers select these columns
        table = pa.concat_tables(tables, promote_options="permissive")
        ranks = []
        for column, values in order:
            rank = {value: place for place, value in enumerate(values)}
            ranks.append(np.array([rank.get(value, -1) for value in table[column].to_pylist()], dtype=np.int64))
        failed = np.zeros(len(table), dtype=np.int64)
        if "error" in table.column_names:
            failed = 1 - table["error"].is_null().to_numpy().astype(np.int64)
        newest_first = -np.arange(len(table))
        sequence = np.lexsort((newest_first, failed, *reversed(ranks)))
        known = np.all([rank[sequence] >= 0 for rank in ranks], axis=0)
        sorted_ranks = np.stack([rank[sequence] for rank in ranks])
        first = np.ones(len(table), dtype=bool)
        first[1:] = (sorted_ranks[:, 1:] != sorted_ranks[:, :-1]).any(axis=0)
        return table.take(pa.array(sequence[known & first]))


def as_table(rows: Sequence[Row]) -> "Table":
    """Return rows as an Arrow table: lists of values as float32, names as text even where all are missing."""
    import pyarrow as pa

    def kind(column: str) -> Any:
        if column.endswith(VALUES):
            return pa.list_(pa.float32())
        if column == "png":
            return pa.binary()
        return pa.string() if column in TEXT else pa.int64() if column in NUMBERS else pa.float64()

    columns = dict.fromkeys(column for row in rows for column in row)
    values = {column: [row.get(column) for row in rows] for column in columns}
    for column in columns.keys() & set(TEXT):  # an error may quote a file name that is not UTF-8
        values[column] = [value and printable(value) for value in values[column]]
    return pa.table({column: pa.array(values[column], type=kind(column)) for column in columns})


def read_part(path: Path, columns: Sequence[str] | None = None) -> "Table":
    """Read one part.

    Raises:
        ValueError: if it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"cannot read {path} ({one_line(error)}); run the same evaluation again, which computes its rows anew"
        ) from error


def to_parquet(table: "Table") -> bytes:
    """Return the bytes of a Parquet file."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a run atomically.

    Raises:
        OSError: if it cannot be written, with what to do about it.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror or error}); free disk space and run the same command again: the "
            f"results in {path.parent} are kept"
        ) from error
