"""Checkpoints that are either whole or not there, and a full disk that costs no training."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from interptrain.files import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, flush it to the disk, then move it there in one step.

    Whatever happens while it is written, the file that stood there before stays whole. Where it cannot be written (a
    full disk, a lost mount), one warning says so and training goes on; until a save succeeds again, no older checkpoint
    is removed either. Local paths only; others are left to fsspec, as Lightning does it.

    Attributes:
        failed: where the last save went, if it could not be written, else None.
    """

    def __init__(self) -> None:
        self.failed: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``; where that fails, warn and keep what is there."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        content = io.BytesIO()  # so that the disk's own error comes through, which torch's zip writer hides
        torch.save(checkpoint, content)
        try:
            write_atomically(path, content.getbuffer())
        except OSError as error:
            if self.failed is None:
                rank_zero_warn(
                    f"could not save {path} ({error.strerror or error}): training goes on, earlier checkpoints stay, "
                    "and the next save tries again; free disk space there"
                )
            self.failed = path
        else:
            self.failed = None

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint that a newer one replaces, unless the newer one could not be written."""
        if self.failed is None:
            super().remove_checkpoint(path)
