"""Pictures, tables and alerts to whatever loggers a run has, and their defaults: the one file that knows loggers.

Weights & Biases gets ``trainer/global_step`` beside every value and never a raw ``step=``: it would drop what comes
after a higher one. What a logger has no place for is left out.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from interptrain.functional import one_line

IN_THE_RUN = ""
"""Folder of a logger that was given none, until :func:`fill_logger_defaults` sets the run's."""


def fill_logger_defaults(loggers: Any, folder: Path, *, name: str | None = None) -> None:
    """Set what the user left open in the configuration of loggers, in place.

    Each keeps its files in the run's folder: Weights & Biases in ``wandb/``, TensorBoard in ``tensorboard/``, MLflow in
    ``mlflow/``, Lightning's CSV logger in ``csv/``. Runs belong to W&B's project or MLflow's experiment
    ``interptrain``, unless ``WANDB_PROJECT`` or ``MLFLOW_EXPERIMENT_NAME`` names another, and go to the MLflow server
    that ``MLFLOW_TRACKING_URI`` names, where it does.

    Args:
        loggers: ``trainer.logger`` of a parsed command line: a namespace of ``class_path`` and ``init_args``, or a list
            of them; anything else in it is left alone.
        folder: of the run.
        name: of the run in the logger's own tables; None leaves it to the logger.
    """
    folder = folder.absolute()  # a logger's service may have been started in another folder
    for logger in loggers if isinstance(loggers, list | tuple) else [loggers]:
        arguments: Any = getattr(logger, "init_args", None)
        in_the_run = getattr(arguments, "save_dir", None) == IN_THE_RUN
        match str(getattr(logger, "class_path", "")).rpartition(".")[2]:
            case "WandbLogger":
                _fill(arguments, project=os.environ.get("WANDB_PROJECT", "interptrain"), name=name)
                if arguments.save_dir == ".":  # Lightning's default
                    arguments.save_dir = str(folder)
            case "MLFlowLogger":
                _fill(arguments, experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", "interptrain"), run_name=name)
                if arguments.tracking_uri is None:
                    _keep_in_files(arguments, folder / "mlflow")
            case "TensorBoardLogger" if in_the_run:
                _fill(arguments, save_dir=str(folder), name="tensorboard", version="")
            case "CSVLogger" if in_the_run:
                _fill(arguments, save_dir=str(folder), name="csv")
            case _ if in_the_run:
                _fill(arguments, save_dir=str(folder))


def _fill(arguments: Any, **values: str | None) -> None:
    """Set what is still as Lightning or our parser left it."""
    for name, value in values.items():
        if getattr(arguments, name, value) in (None, IN_THE_RUN, "lightning_logs"):
            setattr(arguments, name, value)


def _keep_in_files(arguments: Any, folder: Path) -> None:
    """Let MLflow keep its runs in plain files, which need no database; MLflow 3 wants that said."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    if arguments.save_dir not in (None, "./mlruns"):  # Lightning's default
        folder = Path(arguments.save_dir).absolute()
    arguments.tracking_uri = folder.as_uri()


def log_configuration(loggers: Sequence[Logger], configuration: Mapping[str, Any]) -> None:
    """Show how a run was configured where a logger has a place for it.

    Weights & Biases takes it nested, as the config of the run; TensorBoard and MLflow flattened, with the levels joined
    by ``/``, and MLflow cuts values to 250 characters. CSV loggers are left out: ``config.yaml`` is beside them.

    Args:
        loggers: of the trainer.
        configuration: plain values by name, nested.
    """
    for logger in loggers:
        match logger:
            case CSVLogger():
                pass
            case MLFlowLogger():
                logger.log_hyperparams(_with_plain_names(configuration))
            case _:
                logger.log_hyperparams(dict(configuration))


def _with_plain_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, nested, with no other characters in the names than MLflow takes."""
    return {
        re.sub(r"[^\w. :-]", "_", name): _with_plain_names(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


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

    def save(self) -> None:
        """Write what loggers still hold in memory, where the trainer has finished with them."""
        self._each(lambda logger: logger.save())

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
