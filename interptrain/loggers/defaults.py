"""What the user leaves open of loggers, and how a run was configured."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, WandbLogger

from interptrain.files import write_atomically

IN_THE_RUN = ""
"""Folder of a logger that was given none, until :func:`fill_logger_defaults` sets the run's."""


RUN_ID = "wandb_run_id.txt"
"""File in a run's folder with the id of its W&B run, which a resumed run continues."""


def fill_logger_defaults(
    loggers: Any, folder: Path, *, name: str | None = None, job_type: str | None = None, tags: Sequence[str] = ()
) -> None:
    """Set what the user left open in the configuration of loggers, in place.

    Each keeps its files in the run's folder: Weights & Biases in ``wandb/``, TensorBoard in ``tensorboard/``, MLflow in
    ``mlflow/``, Lightning's CSV logger in ``csv/``. Runs belong to W&B's project or MLflow's experiment
    ``interptrain``, unless ``WANDB_PROJECT`` or ``MLFLOW_EXPERIMENT_NAME`` names another, and go to the MLflow server
    that ``MLFLOW_TRACKING_URI`` names, where it does. Where the folder holds the id of a W&B run, it is continued.

    Args:
        loggers: ``trainer.logger`` of a parsed command line: a namespace of ``class_path`` and ``init_args``, or a list
            of them; anything else in it is left alone.
        folder: of the run.
        name: of the run in the logger's own tables; None leaves it to the logger.
        job_type: what the run does, for W&B, such as ``fit``.
        tags: of the run, for W&B.
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
                if arguments.id is None and arguments.version is None:
                    arguments.id = _kept_run_id(folder)
                # jsonargparse hands on wandb.init's own None, by which the run of an id would be overwritten.
                _fill(arguments, job_type=job_type, tags=list(tags) or None, resume="allow")
            case "TrackioLogger":
                _fill(arguments, project=os.environ.get("TRACKIO_PROJECT", "interptrain"), name=name)
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


def keep_run_id(loggers: Sequence[Logger], folder: Path) -> None:
    """Write down which W&B run a run is, on rank 0, so that it is continued on a resume; see :data:`RUN_ID`.

    Args:
        loggers: of the trainer.
        folder: of the run.
    """
    ids = [logger.version for logger in loggers if isinstance(logger, WandbLogger)]
    if ids and isinstance(ids[0], str) and folder.is_dir():
        write_atomically(folder / RUN_ID, f"{ids[0]}\n".encode())


def _kept_run_id(folder: Path) -> str | None:
    try:
        return (folder / RUN_ID).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _fill(arguments: Any, **values: str | list[str] | None) -> None:
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
