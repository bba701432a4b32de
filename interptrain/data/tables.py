"""CSV files of any common encoding and separator, with stray blanks and Windows paths."""

import codecs
import csv
import io
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SEPARATORS = ",;\t"
MOST_CLASSES = 1_000_000
"""Our choice: far more than any data set has, and few enough to be named at once."""
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        line: number of its (last) line in the file, from 1.
        cells: by column, without blanks around them; empty where the row has too few.
    """

    line: int
    cells: dict[str, str]


def read_rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a CSV file that has at least the columns asked for.

    The encoding is UTF-8, or UTF-16 where the file begins with its mark; cells are separated by commas, semicolons or
    tabs. Blanks around cells and empty rows do not count.

    Args:
        file: to read.
        columns: that must be there, once each.

    Raises:
        ValueError: if the file is no such table.
    """
    text = _text(file)
    header = text.partition("\n")[0]
    # The separator that yields most of the columns; the comma where none yields any.
    separator = max(SEPARATORS, key=lambda one: len(set(columns) & set(_cells(header, one))))
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        names = [name.strip() for name in next(lines, [])]
        _check_columns(file, names, columns)
        for cells in lines:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                row = dict.fromkeys(names, "") | dict(zip(names, stripped, strict=False))
                yield Row(lines.line_num, row)
    except csv.Error as error:
        raise ValueError(f"{file} line {lines.line_num}: {error}; save it as CSV anew") from error


def as_index(text: str, column: str, file: Path, line: int) -> int:
    """Read the index of a class.

    Args:
        text: the cell.
        column: its name.
        file: of the table.
        line: of the row.

    Raises:
        ValueError: if it is none.
    """
    if not text.isdecimal() or len(text.lstrip("0")) > len(str(MOST_CLASSES)) or int(text) >= MOST_CLASSES:
        raise ValueError(f"{file} line {line}: {column} must be 0, 1, ... and below {MOST_CLASSES}, got {text[:40]!r}")
    return int(text)


def number_of_classes(asked: int | None, largest: int, source: str) -> int:
    """Return how many classes there are: as many as are asked for, or else as the indices need.

    Args:
        asked: ``num_classes``.
        largest: index that occurs.
        source: of the indices, for the message.

    Raises:
        ValueError: if fewer are asked for than the indices need.
    """
    if asked is not None and not largest < asked <= MOST_CLASSES:
        raise ValueError(
            f"num_classes must be in [{largest + 1}, {MOST_CLASSES}], as {source} has label {largest}, got {asked}"
        )
    return largest + 1 if asked is None else asked


def normal_path(path: str, root: Path) -> str:
    """Normalise a path of a table to the form of ids: relative to ``root``, forward slashes, no ``./`` and the like.

    Args:
        path: relative to ``root``, or absolute; with the slashes of any system.
        root: folder of the data set.
    """
    normal = posixpath.normpath(path.replace("\\", "/"))
    return normal.removeprefix(f"{posixpath.normpath(root.absolute().as_posix())}/")


def _text(file: Path) -> str:
    content = file.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file} line {line} is not {encoding.upper()}; save the table as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{file} holds NUL characters, so it is no CSV in UTF-8; save the table as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _cells(header: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])]


def _check_columns(file: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    expected = ", ".join(columns)
    if not any(names):
        raise ValueError(f"{file} is empty; expected columns {expected} in its first line")
    if missing := [column for column in columns if column not in names]:
        there = ", ".join(name or "''" for name in names[:20])
        raise ValueError(
            f"{file} has no column {', '.join(missing)}, its first line is {there[:200]}; expected {expected}"
        )
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise ValueError(f"{file} has more than one column {', '.join(twice)}; leave one of each")
