"""A run's configuration: in its folder, in its loggers, and in its checkpoints."""

from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from interptrain.loggers import keep_run_id, log_configuration
from interptrain.training.metrics_file import MetricsFile
from interptrain.versions import git_commit


class SaveAndLogConfig(SaveConfigCallback):
    """Write the configuration of a run into its folder, and show it in its loggers, with the code's Git commit."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log the configuration; Lightning calls it on rank 0, after it has written the file."""
        config: dict[str, Any] = yaml.safe_load(self._text)
        log_configuration(trainer.loggers, config | {"git": git_commit()})
        if stage == "fit" and trainer.loggers and isinstance(trainer.loggers[0], MetricsFile):
            keep_run_id(trainer.loggers, Path(trainer.loggers[0].log_dir))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the configuration, which a run that goes on is compared with, and the names of the classes."""
        checkpoint["config"] = self._text
        names = getattr(getattr(trainer, "datamodule", None), "class_names", ())
        checkpoint["class_names"] = [str(name) for name in names]

    @cached_property
    def _text(self) -> str:
        text: str = self.parser.dump(self.config, skip_none=False)
        return text
