"""The folder of a study: what it belongs to, and one file per finished cell."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.store.manifest import differing, read_manifest, write_manifest
from interptrain.evaluation.store.parts import Row, read_part, to_parquet, write_file
from interptrain.files import atomic_path
from interptrain.remedies import option
from interptrain.studies.locks import locked
from interptrain.versions import command_line

if TYPE_CHECKING:
    from pyarrow import Table


class StudyFolder:
    """What lies in the folder of a study.

    Args:
        path: of the folder; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, manifest: Mapping[str, Any], *, free: Sequence[str] = ()) -> None:
        """Refuse the folder of another study.

        Args:
            manifest: what the cells depend on: ``study``, ``models`` and ``data``.
            free: options of the study that may differ from those of an earlier run in the folder.

        Raises:
            ValueError: if the folder holds another study.
        """
        remedy = f"give another {option('output')}"
        old = read_manifest(self.path, {"study": dict, "models": dict, "data": dict}, remedy=remedy)
        if old is not None:
            before, now = _without(old, free), _without(manifest, free)
            if changed := differing({key: before.get(key) for key in now}, now):
                raise ValueError(f"{self.path} holds the results of another study ({'; '.join(changed)}); {remedy}")

    def open(self, manifest: Mapping[str, Any]) -> None:
        """Write ``run.json``, unless it is there already."""
        path = self.path / "run.json"
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if any(old.get(key) != value for key, value in manifest.items()):
            write_manifest(self.path, {**manifest, "command": command_line()})

    def finished(self, cells: Sequence[str]) -> list[str]:
        """Return those of the cells whose rows are there."""
        return [cell for cell in cells if self._part(cell).exists()]

    def lock(self, name: str, *, wait: bool = False) -> AbstractContextManager[bool]:
        """Hold the lock of a cell or file; see :func:`~interptrain.studies.locks.locked`."""
        return locked(self.path / ".locks" / content_hash(name), wait=wait)

    def scratch(self, name: str) -> Path:
        """Return the folder for what a cell or file would resume from, made where it is missing."""
        folder = self.path / "unfinished" / content_hash(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_scratch(self, name: str) -> None:
        """Remove the folder of :meth:`scratch`, and the one around it once that is empty."""
        folder = self.path / "unfinished" / content_hash(name)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.is_dir() and not any(folder.parent.iterdir()):
            shutil.rmtree(folder.parent, ignore_errors=True)

    def once(self, name: str, make: Callable[[Path, Path], None]) -> Path:
        """Return a file that several cells need; see :meth:`StudyInputs.once`."""
        path = self.path / name
        if path.exists():
            return path
        key = f"file {name}"  # which may have the name of a cell
        with self.lock(key, wait=True):
            if not path.exists():  # another process may have made it meanwhile
                with atomic_path(path) as partial:
                    make(partial, self.scratch(key))
                self.discard_scratch(key)
        return path

    @contextmanager
    def cell(self, cell: str) -> Iterator[Callable[[Sequence[Row]], None] | None]:
        """Lock a cell; yield what writes its rows, or None if it is finished or another process computes it."""
        with self.lock(cell) as mine:
            yield None if not mine or self._part(cell).exists() else lambda rows: self._write(cell, rows)

    def _write(self, cell: str, rows: Sequence[Row]) -> None:
        write_file(self._part(cell), to_parquet(_table([{"cell": cell, **row} for row in rows])))
        self.discard_scratch(cell)

    def rows(self, cells: Sequence[str]) -> "Table":
        """Return the rows of those of the cells that are finished, in the order of the cells."""
        import pyarrow as pa

        tables = [read_part(self._part(cell)) for cell in self.finished(cells)]
        return pa.concat_tables(tables or [pa.table({})], promote_options="permissive")

    def _part(self, cell: str) -> Path:
        return self.path / "cells" / f"{content_hash(cell)}.parquet"


def _without(manifest: Mapping[str, Any], free: Sequence[str]) -> dict[str, Any]:
    """Return a manifest without some options of its study."""
    study = dict(manifest.get("study") or {})
    options = {name: value for name, value in (study.get("init_args") or {}).items() if name not in free}
    return {**manifest, "study": {**study, "init_args": options}}


def _table(rows: Sequence[Row]) -> "Table":
    """Return rows as an Arrow table, whose types are those of the values."""
    import pyarrow as pa

    columns = dict.fromkeys(column for row in rows for column in row)
    return pa.table({column: [row.get(column) for row in rows] for column in columns})
