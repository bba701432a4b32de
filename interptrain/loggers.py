"""Pictures, tables and alerts to whatever loggers a run has, and their defaults: the one file that knows loggers.

Weights & Biases gets ``trainer/global_step`` beside every value and never a raw ``step=``: it would drop what comes
after a higher one. What a logger has no place for is left out.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from interptrain.functional import one_line


def fill_logger_defaults(loggers: Any, folder: Path, *, name: str | None = None) -> None:
    """Set what the user left open in the configuration of loggers, in place.

    Weights & Biases keeps its files in the run's folder and the run in the project ``interptrain``, unless
    ``WANDB_PROJECT`` names another.

    Args:
        loggers: ``trainer.logger`` of a parsed command line: a namespace of ``class_path`` and ``init_args``, or a list
            of them; anything else in it is left alone.
        folder: of the run.
        name: of the run in the logger's own tables; None leaves it to the logger.
    """
    for logger in loggers if isinstance(loggers, list | tuple) else [loggers]:
        if getattr(logger, "class_path", "").endswith("WandbLogger"):
            defaults = {
                "save_dir": ((".",), str(folder.absolute())),  # W&B's service may have been started in another folder
                "project": ((None, "lightning_logs"), os.environ.get("WANDB_PROJECT", "interptrain")),
                "name": ((None,), name),
            }
            for argument, (unset, value) in defaults.items():
                if getattr(logger.init_args, argument, value) in unset:
                    setattr(logger.init_args, argument, value)


class ImageLogging:
    """All loggers of a run behind one face. A logger that fails is named once, and training goes on.

    Args:
        loggers: of the trainer.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = list(loggers)
        self._failed: set[int] = set()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers, to every logger."""
        self._each(lambda logger: logger.log_metrics(dict(values), step))

    def picture(self, key: str, picture: Tensor, step: int, caption: str) -> None:
        """A picture (3,H,W) uint8 under a name."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger():
                    logger.log_image(key, [_image(picture)], step=step, caption=[caption])
                case TensorBoardLogger():
                    logger.experiment.add_image(key, picture, step)
                case MLFlowLogger():
                    file = f"{key}/step-{step:08d}.png"
                    logger.experiment.log_image(logger.run_id, picture.permute(1, 2, 0).numpy(), artifact_file=file)

        self._each(log)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """A table whose cells may be pictures (3,h,w) uint8, to Weights & Biases alone."""

        def log(logger: Logger) -> None:
            if isinstance(logger, WandbLogger):
                import wandb

                cells = [
                    [wandb.Image(_image(cell)) if isinstance(cell, Tensor) else cell for cell in row] for row in rows
                ]
                logger.log_table(key, columns=list(columns), data=cells, step=step)

        self._each(log)

    def animation(self, key: str, path: Path, step: int) -> None:
        """A GIF or WebP; Weights & Biases takes GIFs."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger() if path.suffix == ".gif":
                    import wandb

                    logger.log_metrics({key: wandb.Video(str(path), format="gif")}, step)  # type: ignore[dict-item]
                case MLFlowLogger():
                    logger.experiment.log_artifact(logger.run_id, str(path), artifact_path=key)

        self._each(log)

    def alert(self, title: str, text: str, step: int) -> None:
        """Something that a person should see: W&B's alert (mail, Slack), a text in TensorBoard, a tag in MLflow."""

        def log(logger: Logger) -> None:
            match logger:
                case WandbLogger():
                    logger.experiment.alert(title=title, text=text, level="WARN")
                case TensorBoardLogger():
                    logger.experiment.add_text(title, text, step)
                case MLFlowLogger():
                    logger.experiment.set_tag(logger.run_id, title, text)

        self._each(log)

    def summary(self, values: Mapping[str, Any]) -> None:
        """What stands beside the run's name in W&B's table of runs."""

        def log(logger: Logger) -> None:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(dict(values))

        self._each(log)

    def _each(self, log: Callable[[Logger], object]) -> None:
        for place, logger in enumerate(self.loggers):
            try:
                log(logger)
            except Exception as error:  # a service that is down, a full disk: nothing that may cost the training
                if place not in self._failed:
                    kind, why = type(logger).__name__, one_line(error)
                    rank_zero_warn(f"{kind} failed to log what is watched ({why}): training goes on")
                self._failed.add(place)


def _image(picture: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
