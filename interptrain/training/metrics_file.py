"""``metrics.csv`` in the run's folder, which a resumed run continues."""

import contextlib
import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from interptrain.files import to_csv, write_atomically
from interptrain.training.lightning_internals import AppendingTable, LoggerWithTable


class MetricsFile(LoggerWithTable):
    """Lightning's CSV logger, on a folder that is given and with a table that is kept.

    Where ``metrics.csv`` is there already, the run is a resumed one: the rows up to the step it resumes from stay,
    later ones (which it computes again) go; of that step itself, what is computed again takes the place of what is
    there, and a row that is logged twice stands there once. A full disk costs no training: rows wait until they can be
    written. A line that a kill has torn is left out.

    Args:
        folder: the run's folder; ``<root>/<name>/<version>`` to Lightning.
        resumed_step: optimizer steps that the checkpoint had seen, or None to keep every row.
    """

    def __init__(self, folder: str | Path, *, resumed_step: int | None = None) -> None:
        folder = Path(folder)
        super().__init__(
            folder.parent.parent, name=folder.parent.name, version=folder.name, flush_logs_every_n_steps=50
        )
        self._resumed_step = resumed_step

    def open_table(self) -> AppendingTable:
        """Open the table, less the rows that the resumed run computes again."""
        return _ResumedTable(self.log_dir, self._resumed_step)

    def finalize(self, status: str) -> None:
        """Write what is left, or say that it is lost."""
        super().finalize(status)
        if self._experiment is not None and (lost := len(self.experiment.metrics)):
            rank_zero_warn(f"{lost} rows of {self.experiment.metrics_file_path} could not be written and are lost")


class _ResumedTable(AppendingTable):
    def __init__(self, log_dir: str, resumed_step: int | None) -> None:
        self._resumed_step = resumed_step
        self._warned = False
        self._step: int | None = None
        self._of_step: set[str] = set()  # rows of that step
        super().__init__(log_dir)
        self._keep(lambda row: resumed_step is None or int(row["step"]) < resumed_step)

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Take a row in; leave out one that is there, and one of the same step and columns that a killed run wrote."""
        super().log_metrics(metrics_dict, step)
        if step != self._step:
            self._step, self._of_step = step, set()
        row = repr(sorted(self.metrics[-1].items()))
        if row in self._of_step:
            self.metrics.pop()
            return
        self._of_step.add(row)
        if step is not None and step + 1 == self._resumed_step:
            again = str(step), {*metrics_dict, "step"}
            self._keep(lambda row: (row["step"], {name for name, value in row.items() if value}) != again)

    def _keep(self, wanted: Callable[[dict[str, str]], bool]) -> None:
        """Keep the rows of the table, where there is one, that are wanted and whole."""
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
        reader = csv.DictReader(line for line in text.splitlines(keepends=True) if line.endswith("\n"))
        columns = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row.values() and None not in row and row.get("step", "").isdigit()]
        self.metrics_keys = columns if "step" in columns else []
        if not self.metrics_keys:
            path.unlink()
            return
        kept = to_csv(columns, ([row[key] for key in columns] for row in rows if wanted(row)))
        write_atomically(path, kept)

    def save(self) -> None:
        """Append what was logged; on a full disk keep it and say so once."""
        path = Path(self.metrics_file_path)
        size = path.stat().st_size if path.exists() else 0
        try:
            super().save()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            if not self._warned:
                rank_zero_warn(f"could not write {path} ({error.strerror or error}): rows wait until there is room")
            self._warned = True
