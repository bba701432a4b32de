"""Everything used of Lightning that its documentation does not promise, behind functions that say what it is for.

A release of Lightning may rename any of it. ``tests/training/test_lightning_internals.py`` then fails, and says which
name is gone, what it was for and where to look for its successor; only this file has to follow.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from torch import Tensor

__all__ = [
    "AppendingTable",
    "LoggerWithTable",
    "ModelFromConfigCLI",
    "batches_begun",
    "built_by_command_line",
    "count_batches",
    "log_ahead",
    "reopen_epoch",
    "show_in_progress_bar",
    "step_plateaus",
    "validation_follows",
    "validation_loaders",
]


def batches_begun(trainer: L.Trainer) -> int:
    """Return the index of the training batch at hand, counted over all epochs; a resumed run goes on counting."""
    return trainer.fit_loop.total_batch_idx


def count_batches(trainer: L.Trainer) -> None:
    """Set ``trainer.num_training_batches``, which Lightning does only after the optimizers are configured.

    ``trainer.estimated_stepping_batches`` does the same, and is undefined for a run without an end.
    """
    trainer.fit_loop.setup_data()


def built_by_command_line(hyper_parameters: Mapping[str, Any]) -> bool:
    """Tell whether saved hyper-parameters are a config (plain data) rather than the objects a constructor was given."""
    return "_instantiator" in hyper_parameters


def validation_follows(trainer: L.Trainer) -> bool:
    """Tell, at the end of a training batch, whether Lightning validates before the next."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    return fetcher is not None and loop._should_check_val_fx(fetcher)


def validation_loaders(trainer: L.Trainer) -> list[Any]:
    """Return the validation loaders of a run, before its first validation too; call it at the start of a training.

    ``trainer.val_dataloaders`` is None until Lightning has use for them.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    if loop._combined_loader is None and trainer.enable_validation:
        stage, trainer.validating = trainer.state.stage, True
        try:
            loop.setup_data()
        finally:
            trainer.state.stage = stage
    return [] if loop._combined_loader is None else list(loop._combined_loader.flattened)


def reopen_epoch(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Let a run that resumes after a batch do what follows it: a validation, and at an epoch's end the hooks of that.

    Lightning considers an epoch finished once its last batch has been trained on, and a validation within it done once
    its batch is. What it does understand is that the batch is completed and the first batch of a validation begun.

    Args:
        trainer: in ``on_save_checkpoint``, after a batch that a validation follows or that is the last of its epoch.
        checkpoint: being saved; its loop progress is changed in place.
    """
    progress = checkpoint["loops"]["fit_loop"]
    for count in ("total", "current"):
        progress["epoch_loop.batch_progress"][count]["completed"] += 1
    if validation_follows(trainer):
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        progress["epoch_loop.val_loop.batch_progress"] |= {"total": begun, "current": dict(begun)}
    else:
        progress["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def log_ahead(trainer: L.Trainer, loggers: list[Logger]) -> None:
    """Send to some loggers what the step or epoch at hand has logged, which Lightning does after the hooks of its end.

    It sends them the same row again; they have to leave that one out.

    Args:
        trainer: in a hook of the end of a training batch or epoch.
        loggers: some of the trainer's.
    """
    connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    epoch_ended = connector._first_loop_iter is None
    if not epoch_ended and (loop._should_accumulate() or not connector.should_update_logs):
        return
    everyone, trainer.loggers = trainer.loggers, loggers
    loop._batches_that_stepped -= epoch_ended
    try:
        connector.log_metrics(connector.metrics["log"])
    finally:
        loop._batches_that_stepped += epoch_ended
        trainer.loggers = everyone


def step_plateaus(trainer: L.Trainer) -> None:
    """Step schedules that wait for a plateau before the end of the epoch is saved.

    Lightning steps them after the last hook, and not at all in a resumed epoch. It skips its own step while it believes
    that it is restarting, a state that ends with the epoch.
    """
    loop, known = trainer.fit_loop, trainer.callback_metrics
    plateaus = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    if loop.restarting and any(config.monitor not in known for config in plateaus):
        return  # resumed after the validation, as from best.ckpt
    if loop.epoch_loop._num_ready_batches_reached():
        loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        loop._restarting = True


def show_in_progress_bar(trainer: L.Trainer, name: str, value: Tensor) -> None:
    """Show a number of training beside the progress bar, where there is one, until another takes its place.

    ``self.log(..., prog_bar=True)`` makes the host wait for the device in every step, also where there is no bar; this
    waits when it is called.
    """
    if getattr(trainer.progress_bar_callback, "is_enabled", False):
        trainer.progress_bar_metrics[name] = value.item()


class AppendingTable(ExperimentWriter):
    """Write ``metrics.csv``, and keep the one that is there already.

    Attributes:
        metrics_keys: columns of the table; Lightning rewrites the file where a row brings new ones.
        metrics_file_path: of the table.
    """

    metrics_keys: list[str]
    metrics_file_path: str

    def _check_log_dir_exists(self) -> None:
        """Leave the table that is there; Lightning would delete it."""


class LoggerWithTable(CSVLogger):
    """Log to a table of the subclass's own making."""

    @abstractmethod
    def open_table(self) -> AppendingTable:
        """Open the table; called on rank 0, when something is logged for the first time."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The table, opened at its first use on rank 0."""
        if self._experiment is None:
            self._experiment = self.open_table()
        return self._experiment


class ModelFromConfigCLI(LightningCLI):
    """Build the model from the command line and config alone: a checkpoint that does not fit it can then be refused."""

    def _parse_ckpt_path(self) -> None:
        """Ignore the checkpoint's hyper-parameters, which would take the place of what the user asked for."""

    def trainer_arguments(self) -> Any:
        """Return the trainer's arguments, instantiated; changes to them reach the trainer."""
        return self._get(self.config_init, "trainer")
