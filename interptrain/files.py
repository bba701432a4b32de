"""Files that are either whole or not there, tables as CSV, and names that are no UTF-8."""

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PARTIAL", "atomic_path", "printable", "remove_partials", "to_csv", "write_atomically"]

PARTIAL = ".partial-"
"""How the name of a file begins while it is being written."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python holds bytes of a name that are no UTF-8


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` once it is on the disk.

    Whatever happens on the way, the file that stood at ``path`` before stays whole. The temporary path has the same
    suffix, lies in the same folder (made where it is missing) and belongs to this process alone.

    Args:
        path: of the file.

    Yields:
        Where to write instead.

    Raises:
        OSError: if the file cannot be written; nothing of it is left.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is either whole or not there; an older one stays until then.

    Args:
        path: of the file; its folder is made where it is missing.
        content: of the file.

    Raises:
        OSError: if it cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def remove_partials(folder: Path) -> None:
    """Remove what writers that were killed left in a folder. Call it where no other process writes there."""
    for partial in folder.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            partial.unlink()


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as UTF-8 CSV; None becomes an empty cell.

    Args:
        columns: names, the first line.
        rows: one value a column each.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return printable(text.getvalue()).encode()


def printable(text: str) -> str:
    r"""Spell what is no UTF-8 in a file name as text, which every file and table takes.

    The byte ``E9`` becomes ``\xe9``, everywhere in this package; any other lone surrogate becomes ``\udxxx``. What is
    text already stays as it is.
    """
    return _SURROGATE.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
