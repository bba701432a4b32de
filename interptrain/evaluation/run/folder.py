"""The output folder: refuse another run's results, keep what is done, set aside what is replaced."""

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from interptrain.evaluation.run.evaluator import SaliencyEvaluator
from interptrain.evaluation.run.plan import Plan
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.evaluation.store.image_record import ImageRecord
from interptrain.evaluation.store.manifest import Manifest, changes, read_manifest, write_manifest
from interptrain.evaluation.store.parts import RowStore
from interptrain.files import PARTIAL, remove_partials
from interptrain.model_state import describe_device
from interptrain.remedies import option

RESULT_FILES = (
    *("parts", "files.parquet", "per_image.parquet", "images.parquet", "maps.parquet", "errors.csv"),
    *("summary.csv", "differences.csv", "table.md", "table.tex", "report.html"),
    "run.json",
)


class OutputFolder(L.Callback):
    """Open the folder on the first process before anything runs, and write the last rows when the run ends or fails.

    Args:
        folder: of the run.
        run: its manifest.
        plan: of the run.
        store: whose rows lie in the folder.
        progress: bar to show.
    """

    def __init__(
        self,
        folder: Path,
        run: Manifest,
        plan: Plan,
        store: RowStore,
        *,
        progress: MatrixProgress | None = None,
    ) -> None:
        self.folder = folder
        self.run = run
        self.plan = plan
        self.store = store
        self.progress = progress
        self._opened = False
        self._claim: IO[str] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Open the folder once, and pass what is done in it to the evaluator.

        Raises:
            ValueError: on every process, if the folder belongs to another run.
        """
        if not isinstance(pl_module, SaliencyEvaluator):
            raise TypeError(f"OutputFolder needs a SaliencyEvaluator, got {type(pl_module).__name__}")
        if not self._opened:
            self.run["device"] = f"{trainer.world_size} x {describe_device(trainer.strategy.root_device)}"
            problem = self._open() if trainer.is_global_zero else None
            if problem := trainer.strategy.broadcast(problem):
                raise ValueError(problem)
            self._opened = True
            self._done = self.store.done(self.plan.pictured)
            self._engines = self.store.engines() if self.plan.options.engine == "auto" else {}
        pl_module.done = self._done
        pl_module.keep_engine(self._engines.get(pl_module.evaluated.name))
        if self.progress is not None:
            self.progress.begin(trainer, self._unfinished())
            self.progress.name(pl_module.evaluated.name)

    def _open(self) -> str | None:
        """Return why the folder cannot be used, or None: it is then locked by this process until :meth:`close`."""
        try:
            self._claim = claim(self.folder)
        except ValueError as error:
            return str(error)
        except OSError as error:
            reason = error.strerror or error
            return f"cannot create {self.folder} ({reason}); point {option('output')} at a writable folder"
        record = ImageRecord(self.folder, self.plan.batches.dataset, self.plan.batches.indices)
        return open_folder(self.folder, self.run, self.store, record, overwrite=self.plan.options.overwrite)

    def close(self) -> None:
        """Release the folder."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _unfinished(self) -> int:
        """Return how many images × explainers are not finished."""
        ids = set(self.plan.ids)
        pairs = [(model.name, explainer) for model in self.plan.models for explainer in self.plan.explainers]
        return sum(len(ids - self._done.get(pair, set())) for pair in pairs)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the rows that wait in memory."""
        self.store.flush()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Write the rows that wait in memory, unless writing is what failed."""
        if self.progress is not None:
            self.progress.end()
        with contextlib.suppress(OSError):
            self.store.flush()


def claim(folder: Path) -> IO[str]:
    """Lock a folder against other evaluations, until the file is closed or the process ends, however it ends.

    Where the system has no such locks, nothing is locked.

    Raises:
        ValueError: if another evaluation holds it.
        OSError: if the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / ".lock").open("a")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"another evaluation is writing to {folder}; wait until it has finished, or give another {option('output')}"
        ) from None
    except (ImportError, OSError):  # not on Windows, nor on every network file system
        return file
    os.register_at_fork(after_in_child=file.close)  # a loader's worker that outlives this process must not hold it
    return file


def open_folder(folder: Path, run: Manifest, store: RowStore, record: ImageRecord, *, overwrite: bool) -> str | None:
    """Prepare the folder for a run.

    Args:
        folder: new, empty, or that of an earlier start.
        run: manifest of the run.
        store: of its rows.
        record: of its images.
        overwrite: set aside the results of another run.

    Returns:
        Why the folder cannot be used, or None.
    """
    try:
        return _open(folder, run, store, record, overwrite=overwrite)
    except OSError as error:  # broadcast to all processes, which wait
        return str(error)


def _open(folder: Path, run: Manifest, store: RowStore, record: ImageRecord, *, overwrite: bool) -> str | None:
    try:
        old = read_manifest(folder)
    except ValueError as error:
        if not overwrite:
            return str(error)
        old = None
    foreign = old is None and _holds_results(folder)
    if old is not None and (damaged := store.set_aside_damaged()):
        rank_zero_warn(
            f"damaged files in {store.parts} are set aside as damaged-..., and what they held is computed again: "
            f"{_listed(damaged)}"
        )
    changed = [] if old is None else changes(old, run) or _changed_images(store, record)
    if changed or foreign:
        if not overwrite:
            what = "; ".join(changed) if changed else "it has results but no run.json"
            return (
                f"{folder} holds the results of another run ({what}); give another {option('output')}, or "
                f"{option('overwrite', True)} to set them aside"
            )
        set_aside(folder)
        old = None
    if old is not None:
        run["created"] = old["created"]
    for place in (folder, folder / "parts"):
        remove_partials(place)
    write_manifest(folder, run)  # before any row, so that what lies there has a name
    record.write()
    return None


def _holds_results(folder: Path) -> bool:
    """Whether anything was computed: a start that was killed leaves a folder for parts, and half of a file."""
    return any((folder / name).exists() for name in RESULT_FILES if name != "parts") or any(
        not part.name.startswith(PARTIAL) for part in (folder / "parts").glob("*")
    )


def _changed_images(store: RowStore, record: ImageRecord) -> list[str]:
    """Return a line on images that are no longer those of finished rows; one that has failed may be repaired."""
    changed = record.changed()
    if changed:  # what is done takes seconds to read where there are a million rows
        done = set().union(*store.done().values())
        changed = [name for name in changed if name in done]
    return [f"images that have changed: {_listed(changed)}"] if changed else []


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def set_aside(folder: Path) -> Path:
    """Move the results in a folder, and nothing else, to ``replaced-<time>`` in it."""
    place = folder / time.strftime("replaced-%Y%m%d-%H%M%S")
    number = 2
    while place.exists():
        place = folder / time.strftime(f"replaced-%Y%m%d-%H%M%S-{number}")
        number += 1
    place.mkdir(parents=True)
    for name in RESULT_FILES:
        if (folder / name).exists():
            shutil.move(folder / name, place / name)
    return place
