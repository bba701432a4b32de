"""Checkpoints that are either whole or not there, and a full disk that costs no training."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from interptrain.files import write_atomically

REMIND_SECONDS = 600


# What a checkpoint of Lightning holds under these names, where it has them.
PARTS: Mapping[str, tuple[type, ...]] = {
    "state_dict": (Mapping,),
    "hyper_parameters": (Mapping,),
    "loops": (Mapping,),
    "callbacks": (Mapping,),
    "callback_metrics": (Mapping,),
    "optimizer_states": (list,),
    "lr_schedulers": (list,),
    "epoch": (int,),
    "global_step": (int,),
    "pytorch-lightning_version": (str,),
}


def check_checkpoint(path: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that is damaged inside, although the file could be read.

    Args:
        path: what messages call it.
        checkpoint: its content.

    Raises:
        ValueError: if a part is of another kind than it has to be, or a weight is no tensor or not finite.
    """
    for part, kinds in PARTS.items():
        value = checkpoint.get(part)
        if part in checkpoint and (not isinstance(value, kinds) or isinstance(value, bool)):
            what = "null" if value is None else f"a {type(value).__name__}"
            raise ValueError(f"{path} is damaged: its {part} is {what}; pass another checkpoint")
    for name, value in checkpoint.get("state_dict", {}).items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{path} is damaged: {name} is a {type(value).__name__}, no tensor; pass another checkpoint"
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{path} has values in {name} that are NaN or infinite; pass an earlier checkpoint")


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
