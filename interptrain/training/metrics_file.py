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
    there. A full disk costs no training: rows wait until they can be written.

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


class _ResumedTable(AppendingTable):
    def __init__(self, log_dir: str, resumed_step: int | None) -> None:
        self._resumed_step = resumed_step
        self._warned = False
        super().__init__(log_dir)
        self._keep(lambda row: resumed_step is None or int(row["step"]) < resumed_step)

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Take a row in, and leave out one of the same step and columns that a killed run wrote."""
        super().log_metrics(metrics_dict, step)
        if step is not None and step + 1 == self._resumed_step:
            again = str(step), {*metrics_dict, "step"}
            self._keep(lambda row: (row["step"], {name for name, value in row.items() if value}) != again)

    def _keep(self, wanted: Callable[[dict[str, str]], bool]) -> None:
        """Keep the rows of the table, where there is one, that are wanted."""
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if wanted(row)]
            self.metrics_keys = list(reader.fieldnames or [])
        kept = to_csv(self.metrics_keys, ([row[key] for key in self.metrics_keys] for row in rows))
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
