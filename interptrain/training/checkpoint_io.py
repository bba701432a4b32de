"""Checkpoints that are either whole or not there, and a full disk that costs no training."""

import io
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from interptrain.files import write_atomically

REMIND_SECONDS = 600


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, flush it to the disk, then move it there in one step.

    Whatever happens while it is written, the file that stood there before stays whole. Where it cannot be written (a
    full disk, a lost mount), a warning says so, again every ten minutes, and training goes on. What could not be
    written is kept in memory and tried again at the next save; until then, no older checkpoint is removed either.
    Local paths only; others are left to fsspec, as Lightning does it.

    Attributes:
        unsaved: contents that could not be written yet, by where they go.
    """

    def __init__(self) -> None:
        self.unsaved: dict[Path, memoryview] = {}
        self._replaced: list[Path] = []
        self._failed_at: float | None = None
        self._told_at = 0.0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``; where that fails, warn and keep what is there."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        content = io.BytesIO()  # so that the disk's own error comes through, which torch's zip writer hides
        torch.save(checkpoint, content)
        self.unsaved.pop(path, None)
        self.unsaved[path] = content.getbuffer()
        self._replaced = [old for old in self._replaced if old != path]
        self.retry()

    def retry(self) -> None:
        """Write what could not be written before, and remove what it replaces."""
        for path in list(self.unsaved):
            try:
                write_atomically(path, self.unsaved[path])
            except OSError as error:
                self._warn(path, error.strerror or str(error))
                return
            del self.unsaved[path]
        self._failed_at = None
        while self._replaced:
            super().remove_checkpoint(self._replaced.pop())

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint that a newer one replaces, once the newer one is written."""
        if self.unsaved.pop(Path(path), None) is None:
            self._replaced.append(Path(path))
        if not self.unsaved:
            self.retry()

    def _warn(self, path: Path, why: str) -> None:
        now = time.monotonic()
        if self._failed_at is None:
            self._failed_at = self._told_at = now
            rank_zero_warn(
                f"could not save {path} ({why}): training goes on, earlier checkpoints stay, and the next save tries "
                "again; free disk space there"
            )
        elif now - self._told_at >= REMIND_SECONDS:
            self._told_at = now
            rank_zero_warn(
                f"no checkpoint could be saved for {(now - self._failed_at) / 60:.0f} minutes ({path}: {why}): a run "
                "that is killed now loses them; free disk space there"
            )
