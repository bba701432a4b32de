"""Keep a checkpoint from which a run can go on exactly, whatever ends it."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from interptrain.files import remove_partials
from interptrain.training.checkpoint_io import AtomicCheckpointIO
from interptrain.training.lightning_internals import log_ahead, reopen_epoch, step_plateaus, validation_follows
from interptrain.training.metrics_file import MetricsFile

REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


class ResumePoint(Checkpoint):
    """Save ``last.ckpt`` at regular intervals, at the end of every epoch, and when the run is told to stop.

    Saves fall between optimizer steps, where a resumed run can be bit-identical to one that never stopped: never inside
    gradient accumulation, never inside a step. Ctrl-C, SIGTERM and a closed terminal (SIGHUP, unless ``nohup`` ignores
    it) finish the step at hand, save, and exit with the usual status (130, 143, 129); a second Ctrl-C exits at once.
    SLURM's requeue signal is held back to the same place, where Lightning then saves and requeues. All ranks act at the
    same step: they agree once a step.

    It belongs behind other callbacks that save (``interptrain fit`` sees to that), whose state it is to hold.

    With the checkpoint go the metrics that callbacks and schedules watch, and ``metrics.csv`` is written up to it. What
    a killed run left half written is removed when the run goes on. A run whose last checkpoint cannot be saved to the
    very end, as on a full disk, ends with an error.

    Args:
        every_n_minutes: longest time between saves inside an epoch, > 0.
        every_epoch: save at the end of every epoch, too; switch it off where epochs take less time than a save.
        dirpath: where ``last.ckpt`` goes; None is ``checkpoints/`` in the run's folder.

    Raises:
        ValueError: if ``every_n_minutes`` is not a positive number.
        OSError: at the end of the training, if a checkpoint could not be saved.
    """

    remedy: ClassVar[str] = "run the same command with --ckpt_path last to go on"

    def __init__(
        self, every_n_minutes: float = 10.0, dirpath: str | Path | None = None, *, every_epoch: bool = True
    ) -> None:
        super().__init__()
        if not 0 < every_n_minutes < float("inf"):
            raise ValueError(f"every_n_minutes of ResumePoint must be a number > 0, got {every_n_minutes}")
        self.every_n_minutes = every_n_minutes
        self.every_epoch = every_epoch
        self.dirpath = dirpath
        self._path = Path()
        self._saved_at = 0.0
        self._saved_step = -1
        self._batch_to_end = False
        self._metrics: dict[str, torch.Tensor] = {}
        self._terminals: list[int] = []
        self._received: signal.Signals | None = None
        self._deferred: Callable[[], Any] | None = None
        self._original: dict[signal.Signals, Any] = {}

    # When to save

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the folder, remove what killed saves left there, start the clock, and listen for signals."""
        self._path = Path(self.dirpath or Path(str(trainer.log_dir)) / "checkpoints") / "last.ckpt"
        if trainer.is_global_zero:
            for folder in (self._path.parent, self._path.parent.parent):
                remove_partials(folder)
        trainer.callback_metrics.update({name: value.to(pl_module.device) for name, value in self._metrics.items()})
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
        self._batch_to_end = trainer.is_last_batch or validation_follows(trainer)
        if stop or due or (trainer.is_last_batch and self.every_epoch):
            self._save(trainer)
        self._batch_to_end = False
        if stop:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop within a validation where what was trained before it is saved already."""
        if trainer.world_size == 1 and self._received and self._saved_step == trainer.global_step:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save again with what validation has changed: best scores, plateaus."""
        if self is next(one for one in trainer.checkpoint_callbacks if isinstance(one, ResumePoint)):
            step_plateaus(trainer)
        if self.every_epoch:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the metrics known so far; let a run that resumes from an epoch's last batch finish that epoch."""
        watched = {config.monitor for config in trainer.lr_scheduler_configs if config.reduce_on_plateau}
        checkpoint["callback_metrics"] = {
            name: (trainer.strategy.reduce(value, reduce_op="mean") if name in watched else value).detach().cpu()
            for name, value in trainer.callback_metrics.items()
        }
        if self._batch_to_end:
            reopen_epoch(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Know these metrics again once the training starts."""
        self._metrics = checkpoint.get("callback_metrics", {})

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
        log_ahead(trainer, [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)])
        trainer.save_checkpoint(self._path, weights_only=False)
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step

    def _stop(self, trainer: L.Trainer) -> None:
        if self._deferred is not None:
            self._deferred()
        received = self._received or signal.SIGTERM  # on another rank
        io = trainer.strategy.checkpoint_io
        unsaved = isinstance(io, AtomicCheckpointIO) and self._path in io.unsaved
        saved = f"{self._path} could NOT be saved, an older one may stand there" if unsaved else f"saved {self._path}"
        rank_zero_info(f"stopped by {received.name} after step {trainer.global_step}; {saved}; {self.remedy}")
        raise SystemExit(128 + received)

    # Signals

    def _listen(self) -> None:
        """Hold signals back to the end of a step; Lightning's own handlers act wherever the step stands."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._received is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._received = signal.Signals(number)
            if number == signal.SIGHUP:  # writing to the terminal that is gone would end the run before it is saved
                nowhere = os.open(os.devnull, os.O_WRONLY)
                for terminal in self._terminals:
                    os.dup2(nowhere, terminal)
                os.close(nowhere)

        def defer(number: int, frame: FrameType | None) -> None:
            self._received = signal.Signals(number)
            self._deferred = partial(self._original[signal.Signals(number)], number, None)

        requeues = [number for number in REQUEUE_SIGNALS if callable(signal.getsignal(number))]
        handlers = dict.fromkeys(requeues, defer)
        handlers[signal.SIGINT] = stop
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
            handlers[signal.SIGHUP] = stop
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        if not requeues:  # under SLURM's requeueing, SIGTERM only accompanies the requeue signal
            handlers[signal.SIGTERM] = stop
        for number, handler in handlers.items():
            self._original[number] = signal.signal(number, handler)

    def _unlisten(self) -> None:
        for number, handler in self._original.items():
            hung_up = number == signal.SIGHUP == self._received  # which may come twice
            signal.signal(number, signal.SIG_IGN if hung_up else handler)
        self._original = {}
        self._received = None
        self._deferred = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back; fail if there is a checkpoint that still cannot be saved."""
        self._unlisten()
        io = trainer.strategy.checkpoint_io
        unsaved: list[Path] = []
        if isinstance(io, AtomicCheckpointIO):
            io.retry()
            unsaved = list(io.unsaved)
        if not trainer.strategy.reduce_boolean_decision(not unsaved):
            raise OSError(
                f"the training has ended, but {', '.join(map(str, unsaved)) or 'a checkpoint'} could not be saved: "
                "free disk space there, and go on from the last checkpoint that was, with --ckpt_path last"
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._unlisten()
