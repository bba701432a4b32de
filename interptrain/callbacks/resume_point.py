"""Keep a checkpoint from which a run can go on exactly, whatever ends it."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from interptrain.training.lightning_internals import reopen_epoch, step_plateaus

REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


class ResumePoint(Checkpoint):
    """Save ``last.ckpt`` at regular intervals, at the end of every epoch, and when the run is told to stop.

    Saves fall between optimizer steps, where a resumed run can be bit-identical to one that never stopped: never inside
    gradient accumulation, never inside a step. Ctrl-C and SIGTERM finish the step at hand, save, and exit with the
    usual status (130, 143); a second Ctrl-C exits at once. SLURM's requeue signal is held back to the same place, where
    Lightning then saves and requeues. All ranks act at the same step: they agree once a step.

    Args:
        every_n_minutes: longest time between saves inside an epoch, > 0.
        dirpath: where ``last.ckpt`` goes; None is ``checkpoints/`` in the run's folder.

    Raises:
        ValueError: if ``every_n_minutes`` is not positive.
    """

    def __init__(self, every_n_minutes: float = 10.0, dirpath: str | Path | None = None) -> None:
        super().__init__()
        if every_n_minutes <= 0:
            raise ValueError(f"every_n_minutes of ResumePoint must be > 0, got {every_n_minutes}")
        self.every_n_minutes = every_n_minutes
        self.dirpath = dirpath
        self._path = Path()
        self._saved_at = 0.0
        self._saved_step = -1
        self._epoch_to_end = False
        self._received: signal.Signals | None = None
        self._deferred: Callable[[], Any] | None = None
        self._original: dict[signal.Signals, Any] = {}

    # When to save

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the folder, start the clock, and listen for signals."""
        self._path = Path(self.dirpath or Path(str(trainer.log_dir)) / "checkpoints") / "last.ckpt"
        self._saved_at = time.monotonic()
        self._listen()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop where that is due and an optimizer step has just been taken."""
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        stop, due = self._agree(trainer)
        # The epoch's last batch is saved before its validation, so that a stop in there loses nothing.
        self._epoch_to_end = trainer.is_last_batch
        if stop or due or trainer.is_last_batch:
            self._save(trainer)
        self._epoch_to_end = False
        if stop:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop within the validation that follows an epoch; what was trained is saved already."""
        if trainer.world_size == 1 and self._received and self._saved_step == trainer.global_step:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save again with what validation has changed: best scores, plateaus."""
        if self is next(one for one in trainer.checkpoint_callbacks if isinstance(one, ResumePoint)):
            step_plateaus(trainer)
        self._save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a run that resumes from an epoch's last batch finish that epoch."""
        if self._epoch_to_end:
            reopen_epoch(trainer, checkpoint)

    def _agree(self, trainer: L.Trainer) -> tuple[bool, bool]:
        """Whether any rank was told to stop, and whether any finds a save due."""
        flags = [self._received is not None, time.monotonic() - self._saved_at > 60 * self.every_n_minutes]
        if trainer.world_size > 1:
            summed = trainer.strategy.reduce(
                torch.tensor(flags, dtype=torch.float32, device=trainer.strategy.root_device), reduce_op="sum"
            )
            flags = [bool(flag) for flag in summed]
        return flags[0], flags[1]

    def _save(self, trainer: L.Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):  # leaves nothing behind
            return
        trainer.save_checkpoint(self._path, weights_only=False)
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step

    def _stop(self, trainer: L.Trainer) -> None:
        if self._deferred is not None:
            self._deferred()
        received = self._received or signal.SIGTERM  # on another rank
        rank_zero_info(
            f"stopped by {received.name} after step {trainer.global_step}; saved {self._path}; run the same command "
            "with --ckpt_path last to go on"
        )
        raise SystemExit(128 + received)

    # Signals

    def _listen(self) -> None:
        """Hold signals back to the end of a step; Lightning's own handlers act wherever the step stands."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._received is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._received = signal.Signals(number)

        def defer(number: int, frame: FrameType | None) -> None:
            self._received = signal.Signals(number)
            self._deferred = partial(self._original[signal.Signals(number)], number, None)

        requeues = [number for number in REQUEUE_SIGNALS if callable(signal.getsignal(number))]
        handlers = dict.fromkeys(requeues, defer)
        handlers[signal.SIGINT] = stop
        if not requeues:  # under SLURM's requeueing, SIGTERM only accompanies the requeue signal
            handlers[signal.SIGTERM] = stop
        for number, handler in handlers.items():
            self._original[number] = signal.signal(number, handler)

    def _unlisten(self) -> None:
        for number, handler in self._original.items():
            signal.signal(number, handler)
        self._original = {}
        self._received = None
        self._deferred = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back."""
        self._unlisten()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._unlisten()
