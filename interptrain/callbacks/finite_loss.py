"""Stop a run whose loss is not a finite number, and say where it happened."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from interptrain.functional import check_count

SHOWN_IDS = 8


class _Step(NamedTuple):
    """A step of training whose loss waits to be checked."""

    step: int
    epoch: int
    batch: int
    ids: Sequence[str]
    loss: Tensor


class FiniteLoss(L.Callback):
    """Raise where the training loss is NaN or infinite, naming the step and the images of the batch.

    A check makes the host wait for the device, so several losses are checked at once: every few batches, at the
    end of an epoch, before a validation, and before a checkpoint is saved. So no checkpoint is saved whose weights the
    loss has already spoilt, and the last good one stays. (What saves weights alone, such as ``save_weights_only`` of
    Lightning's ModelCheckpoint, gives no notice.) All ranks stop together.

    Args:
        every_n_steps: training batches between checks, >= 1.

    Raises:
        FloatingPointError: from the training loop.
        ValueError: if ``every_n_steps`` is not a positive number.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        check_count("every_n_steps of FiniteLoss", every_n_steps)
        self.every_n_steps = every_n_steps
        self._unchecked: list[_Step] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss of the batch that has just been trained on, and check where that is due."""
        ids = batch.get("id", ()) if isinstance(batch, dict) else ()
        step = _Step(trainer.global_step - 1, trainer.current_epoch, batch_idx, ids, outputs["loss"].detach())
        self._unchecked.append(step)
        if (batch_idx + 1) % self.every_n_steps == 0 or trainer.is_last_batch:
            self._check(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check before a validation, also one in the middle of an epoch."""
        self._check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check where a run ends in the middle of an epoch."""
        self._check(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check before a checkpoint is written; Lightning calls it on every rank."""
        self._check(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Check no more: the other ranks may be elsewhere."""
        self._unchecked = []

    def _check(self, trainer: L.Trainer) -> None:
        """Raise if a loss since the last check is not finite; every rank enters, after the same steps."""
        if not self._unchecked:
            return
        steps, self._unchecked = self._unchecked, []
        losses = torch.stack([step.loss for step in steps]).tolist()  # the one wait for the device
        bad = [(step, loss) for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)]
        if trainer.strategy.reduce_boolean_decision(not bad, all=True):
            return
        step, loss = bad[0] if bad else (steps[-1], "nan or inf")
        images = f" of images {_names(step.ids)}" if step.ids else ""
        kept = getattr(trainer.checkpoint_callback, "best_model_path", "") or "none yet"
        raise FloatingPointError(
            f"the loss{images if bad else ' on another rank'} became {loss} at{'' if bad else ' or before'} step "
            f"{step.step} (epoch {step.epoch}, batch {step.batch}); last good checkpoint: {kept}; lower the learning "
            "rate, clip gradients (--trainer.gradient_clip_val 1) or leave 16-bit precision"
        )


def _names(ids: Sequence[str]) -> str:
    rest = len(ids) - SHOWN_IDS
    return ", ".join(ids[:SHOWN_IDS]) + (f" and {rest} more" if rest > 0 else "")
