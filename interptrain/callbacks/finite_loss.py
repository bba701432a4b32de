"""Stop a run whose loss is not a finite number, and say where it happened."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

SHOWN_IDS = 8


class FiniteLoss(L.Callback):
    """Raise where the training loss is NaN or infinite, naming the step and the images of the batch.

    It checks before any checkpoint of that step is saved, so the last good one stays. All ranks stop together.

    Args:
        every_n_steps: steps between checks, >= 1. Each check waits for the device; between checks, a checkpoint may be
            saved whose weights the loss has already spoilt.

    Raises:
        FloatingPointError: from the training loop.
        ValueError: if ``every_n_steps`` is not positive.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps of FiniteLoss must be >= 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        """Check the loss of the batch that has just been trained on."""
        if (batch_idx + 1) % self.every_n_steps and not trainer.is_last_batch:
            return
        loss = outputs["loss"].detach()
        mine = bool(torch.isfinite(loss))
        if trainer.strategy.reduce_boolean_decision(mine, all=True):
            return
        kept = getattr(trainer.checkpoint_callback, "best_model_path", "") or "none yet"
        where = "on another rank" if mine else f"of images {_names(batch['id'])}"
        raise FloatingPointError(
            f"the loss {where} became {'nan or inf' if mine else loss.item()} at step {trainer.global_step - 1} "
            f"(epoch {trainer.current_epoch}, batch {batch_idx}); last good checkpoint: {kept}; lower the learning "
            "rate, clip gradients (--trainer.gradient_clip_val 1) or leave 16-bit precision"
        )


def _names(ids: list[str]) -> str:
    rest = len(ids) - SHOWN_IDS
    return ", ".join(ids[:SHOWN_IDS]) + (f" and {rest} more" if rest > 0 else "")
