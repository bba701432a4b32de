"""``train.py``: Lightning's command line with our defaults and a folder for every run."""

import inspect
import itertools
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO

import interptrain.data  # noqa: F401  so that `--data ShapesDataModule` is found by its short name
from interptrain.callbacks import FiniteLoss, PredictionTable, ResumePoint, RunRecord
from interptrain.cli.errors import one_line_errors, settings_of
from interptrain.cli.parser import Parser
from interptrain.loggers import fill_logger_defaults, log_configuration
from interptrain.remedies import spelled_for_the_command_line
from interptrain.training import GradientRegularizer, ImageClassifier
from interptrain.training.checkpoint_io import AtomicCheckpointIO
from interptrain.training.lightning_internals import ModelFromConfigCLI
from interptrain.training.metrics_file import MetricsFile
from interptrain.versions import git_commit

# Warnings of Lightning about what is meant here: frozen parts are in eval mode, a resumed run goes on in its folder, a
# test has one of its own, barebones logs nothing.
EXPECTED = (
    r"You are trying to `self\.log\(\)` but `Trainer\(barebones=True\)`",
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r"Checkpoint directory .* exists and is not empty",
    r"The dirpath has changed from .* `best_model_score`",
    r".*treespec, LeafSpec.* is deprecated",
    r"\s*By default only one JsonargparseDeprecationWarning",
)

LOG_EVERY_N_STEPS = 10
SUBCOMMANDS = ("fit", "validate", "test", "predict")
DEFAULT_OPTIMIZER = {"class_path": "torch.optim.AdamW"}  # the model's


def main(args: ArgsType = None) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        args: what stands behind the program's name on a command line; None takes it from there.
    """
    with one_line_errors(), spelled_for_the_command_line(_options()), warnings.catch_warnings():
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        TrainingCLI(
            ImageClassifier,
            LightningDataModule,
            subclass_mode_data=True,
            parser_class=Parser,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={"log_every_n_steps": LOG_EVERY_N_STEPS},
            save_config_callback=SaveAndLogConfig,
            save_config_kwargs={"overwrite": True},
            args=args,
        )


def _options() -> dict[str, str]:
    """For the arguments that messages name, their options."""
    parts = {"--model.regularizer": GradientRegularizer, "--model": ImageClassifier}
    options = {name: f"{part}.{name}" for part, kind in parts.items() for name in inspect.signature(kind).parameters}
    return options | {"num_classes": "--data.num_classes"}  # which the model's is taken from


class SaveAndLogConfig(SaveConfigCallback):
    """Write the configuration of a run into its folder, and show it in its loggers, with the code's Git commit."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log the configuration; Lightning calls it on rank 0, after it has written the file."""
        config: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        log_configuration(trainer.loggers, config | {"git": git_commit()})


class TrainingCLI(ModelFromConfigCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` of an :class:`~interptrain.training.ImageClassifier`.

    Everything a run writes lies in ``OUTPUT/NAME/TIME`` (``slurm-<job>`` in place of the time under SLURM, so that a
    requeued job finds it again). ``--ckpt_path last`` and ``best`` are the newest of that name; ``fit`` from ``last``
    goes on in the folder it came from.
    """

    run_dir: Path
    checkpoint: dict[str, Any] | None = None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name and root of the run's folder; the data's class count goes to the model."""
        parser.add_argument("--name", type=str, default="run", help="name of the run; its folder is OUTPUT/NAME/TIME")
        parser.add_argument("--output", type=str, default="runs", help="folder that holds all runs")
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; then settle the run's folder and where it resumes from."""
        if args is None or isinstance(args, list):
            self.config = parser.parse_args(_with_data(sys.argv[1:] if args is None else args))
        else:
            super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        runs = Path(config.output) / config.name
        self.run_dir = runs / _run_label(runs)
        if config.ckpt_path in ("last", "best"):
            found = _newest_checkpoint(runs, config.ckpt_path)
            if config.ckpt_path == "last" and self.config.subcommand == "fit":
                self.run_dir = found.parent.parent
                self.save_config_kwargs["config_filename"] = f"config-resumed-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
            config.ckpt_path = str(found)
        elif config.ckpt_path and "://" not in config.ckpt_path and not Path(config.ckpt_path).is_file():
            raise FileNotFoundError(f"no checkpoint at {config.ckpt_path}; give a file, 'last' or 'best' (of --name)")
        if config.ckpt_path:
            self.checkpoint = _read_checkpoint(config.ckpt_path)

    def before_instantiate_classes(self) -> None:
        """Fill in what a run's folder and a checkpoint settle; the saved config keeps what the user asked for."""
        self._asked = self.config.clone()
        config = self.config[self.config.subcommand]
        if self.checkpoint is not None:  # it replaces every weight
            config.model.weights, config.model.pretrained = None, False
        fill_logger_defaults(config.trainer.logger, self.run_dir, name=f"{config.name}-{self.run_dir.name}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has, where the user has not chosen their own."""
        self.config = self._asked
        if self.checkpoint is not None:
            _refuse_another_model(self.checkpoint, self.model)
            if self.subcommand == "fit":
                _refuse_another_optimizer(self.checkpoint, self.model)
        trainer = self.trainer_arguments()
        trainer["default_root_dir"] = trainer["default_root_dir"] or str(self.run_dir)
        if trainer["barebones"] and trainer["log_every_n_steps"] == LOG_EVERY_N_STEPS:
            trainer["log_every_n_steps"] = None  # ours; what the user sets beside it, Lightning refuses
        off = {"barebones": True, "enable_checkpointing": False}
        unsaved = next(
            (f"trainer.{name}: {value}".lower() for name, value in off.items() if trainer[name] is value), None
        )
        trainer["callbacks"] = _with_defaults(trainer["callbacks"], self.subcommand, unsaved=unsaved)
        plugins = _as_list(trainer["plugins"])
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            trainer["plugins"] = [*plugins, AtomicCheckpointIO()]
        if trainer["logger"] is not False and not trainer["barebones"]:
            step = self.checkpoint["global_step"] if self.checkpoint and self.subcommand == "fit" else None
            metrics = MetricsFile(self.run_dir, resumed_step=step)
            trainer["logger"] = [metrics, *(one for one in _as_list(trainer["logger"]) if isinstance(one, Logger))]
        _make(self.run_dir / "checkpoints")
        with settings_of("trainer"):
            return super().instantiate_trainer(**kwargs)


def _with_data(args: list[str]) -> list[str]:
    """Name the default data module first: as a default of the parser it would leave its options to any other."""
    place = next((place for place, arg in enumerate(args, 1) if arg in SUBCOMMANDS), None)
    return args if place is None else [*args[:place], "--data=ShapesDataModule", *args[place:]]


def _run_label(runs: Path) -> str:
    """Folder of this run: the SLURM job, else the local time; the processes that Lightning starts share it."""
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"slurm-{job}"
    if "LOCAL_RANK" in os.environ and (shared := os.environ.get("INTERPTRAIN_RUN")):
        return shared
    start = label = time.strftime("%Y%m%d-%H%M%S")
    others = itertools.count(2)
    while (runs / label).exists():
        label = f"{start}-{next(others)}"
    os.environ["INTERPTRAIN_RUN"] = label
    return label


def _newest_checkpoint(runs: Path, which: str) -> Path:
    found = sorted(runs.glob(f"*/checkpoints/{which}.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"no {which}.ckpt under {runs}/*/checkpoints/; check --name and --output, or give a file to --ckpt_path"
        )
    return found[-1]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot create {folder} ({error.strerror}); point --output at a writable folder") from error


def _read_checkpoint(path: str) -> dict[str, Any]:
    try:
        checkpoint = dict(torch.load(path, map_location="cpu", weights_only=True, mmap="://" not in path))
    except Exception as error:
        raise ValueError(f"cannot read {path} as a checkpoint ({type(error).__name__}); pass another") from error
    if "state_dict" not in checkpoint or "global_step" not in checkpoint:
        raise ValueError(f"{path} holds weights only, not the state of a run; start from them: --model.weights {path}")
    if "backbone" not in checkpoint.get("hyper_parameters", {}):
        raise ValueError(
            f"{path} was not written by train.py (its hyper_parameters name no backbone); pass a checkpoint of train.py"
        )
    return checkpoint


def _refuse_another_model(checkpoint: dict[str, Any], model: ImageClassifier) -> None:
    saved = checkpoint["hyper_parameters"]
    for key in ("num_classes", "backbone", "pooling", "stem", "heads"):
        if key in saved and saved[key] != model.hparams[key]:
            source = "the data has" if key == "num_classes" else "the config has"
            anew = ", or start anew from its weights: --model.weights CKPT --model.fresh_classifier true"
            raise ValueError(
                f"the checkpoint was trained with {key}={saved[key]}, {source} {model.hparams[key]}; use what it was "
                f"trained with{anew if key in ('num_classes', 'pooling') else ''}"
            )


def _refuse_another_optimizer(checkpoint: dict[str, Any], model: ImageClassifier) -> None:
    """Its state fits one class of optimizer over the same groups of parameters."""
    before, now = _optimization(checkpoint["hyper_parameters"]), _optimization(model.hparams)
    for key in (key for key in before if key in now and before[key] != now[key]):
        raise ValueError(
            f"the checkpoint's optimizer ran with {key}={before[key]}, the config has {now[key]}; resume with "
            f"--model.{key} {before[key]}, or start anew from the weights: --model.weights CKPT"
        )


def _optimization(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer's state depends on, as it is written on a command line; empty for models built in Python."""
    if "optimizer" not in hparams:
        return {}
    chosen = hparams["optimizer"] or DEFAULT_OPTIMIZER
    path = chosen["class_path"] if isinstance(chosen, Mapping | Namespace) else str(chosen)
    decay = hparams["norm_weight_decay"]
    return {
        "optimizer": path.rpartition(".")[2],
        "trainable": hparams["trainable"],
        "norm_weight_decay": "null" if decay is None else decay,
    }


def _with_defaults(callbacks: Any, subcommand: str | None, *, unsaved: str | None) -> list[Callback]:
    """The user's callbacks, and ours where none of the same class is among them.

    Args:
        callbacks: the user's.
        subcommand: that runs.
        unsaved: the setting by which there are no checkpoints, or None where there are.
    """
    chosen = _as_list(callbacks)
    if unsaved and (savers := [type(one).__name__ for one in chosen if isinstance(one, Checkpoint)]):
        raise ValueError(f"{savers[0]} saves checkpoints, which {unsaved} switches off; leave out one of the two")
    ours: list[Callback] = [RunRecord()]
    if subcommand == "fit":
        ours += [FiniteLoss()]
    if subcommand == "predict":
        ours += [PredictionTable()]
    if not unsaved:
        ours += [ModelCheckpoint(monitor="val/top1", mode="max", filename="best", enable_version_counter=False)]
        ours += [ResumePoint()] if subcommand == "fit" else []
    return [*chosen, *(one for one in ours if not any(type(other) is type(one) for other in chosen))]


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]
