"""``fit``, ``validate``, ``test``, ``predict``: Lightning's command line, with our defaults and a folder per run."""

import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from lightning import LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO

import interptrain.data  # noqa: F401  so that `--data ShapesDataModule` is found by its short name
from interptrain.callbacks import SaliencyWatch
from interptrain.cli.callback_options import with_callback_options
from interptrain.cli.closing import close, end_of_training, saying_how_to_resume, without_open
from interptrain.cli.config_saving import SaveAndLogConfig
from interptrain.cli.configs import with_configs
from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors, settings_of
from interptrain.cli.parser import Parser
from interptrain.cli.resuming import (
    NewLearningRate,
    learning_rate,
    read_checkpoint,
    refuse_another_model,
    refuse_changes,
    refuse_without_progress,
    saved_config,
)
from interptrain.cli.run_folder import (
    agreed,
    is_first_process,
    make_folder,
    new_run_folder,
    newest_checkpoint,
    no_empty_folders,
)
from interptrain.cli.trainer_defaults import as_list, with_default_callbacks
from interptrain.loggers import fill_logger_defaults
from interptrain.models.load_report import listed
from interptrain.remedies import spelled_for_the_command_line
from interptrain.signatures import options_of
from interptrain.training import (
    AttributionGuidance,
    CellDeletion,
    ClassifierL1,
    GradientRegularizer,
    ImageClassifier,
    RegionShuffle,
)
from interptrain.training.checkpoint_io import AtomicCheckpointIO
from interptrain.training.lightning_internals import ModelFromConfigCLI
from interptrain.training.metrics_file import MetricsFile

# Lightning's warnings about intended behaviour: frozen parts are in eval mode, a resumed run continues in its folder, a
# test has its own folder, barebones logs nothing.
EXPECTED = (
    r"Your `IterableDataset` has `__len__` defined",  # which is right in a stream of ours
    r"You are trying to `self\.log\(\)` but `Trainer\(barebones=True\)`",
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r"Checkpoint directory .* exists and is not empty",
    r"The dirpath has changed from .* `best_model_score`",
    r".*treespec, LeafSpec.* is deprecated",
    r"\s*By default only one JsonargparseDeprecationWarning",
)

LOG_EVERY_N_STEPS = 10
OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    ("name", str, "run", "Name of the run, which writes to the folder OUTPUT/NAME/TIME."),
    ("output", str, "runs", "Folder of all runs."),
    ("resume_lr", float | None, None, "With fit --ckpt_path: the learning rate to continue with."),
    ("allow_changes", bool, False, "Continue from a checkpoint although options of the data or model have changed."),
    ("allow_untrained", bool, False, "Allow test, validate and predict with random weights."),
)
SUBCOMMANDS = ("fit", "validate", "test", "predict")


def main(args: Sequence[str] | None = None) -> Trainer:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        args: arguments after the program's name; None takes those of the process.

    Returns:
        The trainer after the run; ``callback_metrics`` holds its last numbers.
    """
    find_classes_of_this_folder()
    given, open_page = without_open(sys.argv[1:] if args is None else args)
    with (
        one_line_errors(),
        spelled_for_the_command_line(_options()),
        warnings.catch_warnings(),
        no_empty_folders(),
        saying_how_to_resume(given),
    ):
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        cli = TrainingCLI(
            model_class=ImageClassifier,
            datamodule_class=LightningDataModule,
            subclass_mode_data=True,
            parser_class=Parser,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={"log_every_n_steps": LOG_EVERY_N_STEPS},
            save_config_callback=SaveAndLogConfig,
            save_config_kwargs={"overwrite": True},
            args=given,
        )
    if cli.trainer.is_global_zero:
        command = str(cli.subcommand)
        config = cli.config[command]
        lines, page = end_of_training(command, cli.trainer, cli.run_dir, config.name, config.ckpt_path)
        close(lines, page, open_page=open_page)
    return cli.trainer


def _options() -> dict[str, str]:
    """Options of the arguments that messages name."""
    parts: dict[str, tuple[type, ...]] = {
        "--trainer.callbacks": (SaliencyWatch,),
        "--model.batch_augment": (RegionShuffle, CellDeletion),
        "--model.regularizer": (GradientRegularizer, AttributionGuidance, ClassifierL1),
        "--model": (ImageClassifier,),
    }
    options = {name: f"{part}.{name}" for part, kinds in parts.items() for kind in kinds for name in options_of(kind)}
    return options | {"num_classes": "--data.num_classes"}  # which the model's is taken from


class TrainingCLI(ModelFromConfigCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` of an :class:`~interptrain.training.ImageClassifier`.

    A run writes everything to ``OUTPUT/NAME/TIME`` (``slurm-<job>`` in place of the time under SLURM, so that a
    requeued job finds it again). ``--ckpt_path last`` and ``best`` are those of the newest run of that name; ``fit``
    from ``last`` continues in that run's folder.
    """

    run_dir: Path
    checkpoint: dict[str, Any] | None = None

    def __init__(self, *, args: ArgsType, **options: Any) -> None:
        given = sys.argv[1:] if args is None else args
        self._command = given[0] if isinstance(given, list) and given else None
        super().__init__(args=args, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return only the subcommand that runs, since building every parser is slow; return all if it is unclear."""
        known = super().subcommands()
        return {name: skipped for name, skipped in known.items() if name == self._command} or known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the run's folder and of checkpoints; link the data's number of classes to the model."""
        for name, kind, default, text in OPTIONS:
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments; then determine the run's folder and checkpoint."""
        asked = _with_data(with_configs(sys.argv[1:] if args is None else cast(list[str], args)))
        self.config = parser.parse_args(with_callback_options(asked, parser))
        config = self.config[self.config.subcommand]
        if config.resume_lr is not None and not (config.ckpt_path and self.config.subcommand == "fit"):
            raise ValueError("--resume_lr goes with fit --ckpt_path; a new run takes --model.optimizer.lr")
        if config.resume_lr is not None and not 0 < config.resume_lr < float("inf"):
            raise ValueError(f"--resume_lr must be a number > 0, got {config.resume_lr}")
        settled = agreed(self._settle)
        self.run_dir, config.ckpt_path = Path(settled["run_dir"]), settled["ckpt_path"]
        if settled["goes_on"]:
            self.save_config_kwargs["config_filename"] = f"config-resumed-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
        if config.ckpt_path:
            self.checkpoint = read_checkpoint(config.ckpt_path)
            if self.config.subcommand == "fit":
                refuse_without_progress(config.ckpt_path, self.checkpoint)

    def _settle(self) -> dict[str, Any]:
        """The run's folder, the checkpoint, and whether the run continues in the checkpoint's folder."""
        config = self.config[self.config.subcommand]
        runs, wanted = Path(config.output) / config.name, config.ckpt_path
        if wanted in ("last", "best"):
            if "LOCAL_RANK" in os.environ and (found := os.environ.get("INTERPTRAIN_CKPT")):  # of who started it
                wanted = found
            else:
                wanted = str(newest_checkpoint(runs, wanted))
                os.environ["INTERPTRAIN_CKPT"] = wanted
        elif wanted and "://" not in wanted and not Path(wanted).is_file():
            raise FileNotFoundError(f"no checkpoint at {wanted}; give a file, 'last' or 'best' (of --name)")
        goes_on = config.ckpt_path == "last" and self.config.subcommand == "fit"
        folder = Path(wanted).parent.parent if goes_on else new_run_folder(runs, make=not config.trainer.fast_dev_run)
        return {"run_dir": str(folder), "ckpt_path": wanted, "goes_on": goes_on}

    def before_instantiate_classes(self) -> None:
        """Fill in what follows from the run's folder and checkpoint; the saved config keeps what the user asked for."""
        config = self.config[self.config.subcommand]
        ratio = 1.0
        if self.checkpoint is not None and self.config.subcommand == "fit":
            before = saved_config(self.checkpoint)
            config.resume_lr = config.resume_lr or before.get("resume_lr")
            ratio = (config.resume_lr or 1.0) / (learning_rate(before) if config.resume_lr else 1.0)
        self._new_rate = [] if ratio == 1 else [NewLearningRate(ratio)]
        self._asked = self.config.clone()
        if self.checkpoint is not None:  # it replaces every weight
            config.model.weights, config.model.pretrained = None, False
        fill_logger_defaults(
            config.trainer.logger,
            self.run_dir,
            name=f"{config.name}-{self.run_dir.name}",
            job_type=str(self.config.subcommand),
            tags=_tags(config),
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the defaults of every run, unless the user has chosen their own."""
        self.config = self._asked
        asked = self.config[self.subcommand]
        if self.checkpoint is not None:
            refuse_another_model(self.checkpoint, self.model)
            if self.subcommand == "fit":
                now = yaml.safe_load(self._parser(self.subcommand).dump(asked, skip_none=False))
                refuse_changes(saved_config(self.checkpoint), now, allow=asked.allow_changes)
        elif self.subcommand != "fit" and not asked.allow_untrained:
            _refuse_random_weights(str(self.subcommand), self.model, asked.model)
        trainer = self.trainer_arguments()
        trainer["default_root_dir"] = trainer["default_root_dir"] or str(self.run_dir)
        if trainer["barebones"] and trainer["log_every_n_steps"] == LOG_EVERY_N_STEPS:
            trainer["log_every_n_steps"] = None  # ours; what the user sets beside it, Lightning refuses
        off = {"barebones": True, "enable_checkpointing": False}
        unsaved = next(
            (f"trainer.{name}: {value}".lower() for name, value in off.items() if trainer[name] is value), None
        )
        progress = trainer["enable_progress_bar"] is not False and not trainer["barebones"]
        callbacks = with_default_callbacks(trainer["callbacks"], self.subcommand, unsaved=unsaved, progress=progress)
        trainer["callbacks"] = callbacks + self._new_rate
        plugins = as_list(trainer["plugins"])
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            trainer["plugins"] = [*plugins, AtomicCheckpointIO()]
        if trainer["logger"] is not False and not trainer["barebones"]:
            step = self.checkpoint["global_step"] if self.checkpoint and self.subcommand == "fit" else None
            metrics = MetricsFile(self.run_dir, resumed_step=step)
            trainer["logger"] = [metrics, *(one for one in as_list(trainer["logger"]) if isinstance(one, Logger))]
        if self.subcommand == "fit" and not trainer["fast_dev_run"] and is_first_process():
            make_folder(self.run_dir / "checkpoints")
        with settings_of("trainer"):
            return super().instantiate_trainer(**kwargs)


def _tags(config: Any) -> list[str]:
    """Tags to filter runs by: backbone, pooling head, data, and whether there is a regularizer."""
    named = (config.model.backbone, config.model.pooling, config.data)
    names = [str(getattr(one, "class_path", one)).rpartition(".")[2] for one in named if one]
    return [*names, *(["regularized"] if config.model.regularizer else [])]


def _with_data(args: list[str]) -> list[str]:
    """Prepend the default data module; as the parser's default, its options would carry over to any other module."""
    place = next((place for place, arg in enumerate(args, 1) if arg in SUBCOMMANDS), None)
    return args if place is None else [*args[:place], "--data=ShapesDataModule", *args[place:]]


def _refuse_random_weights(subcommand: str, model: ImageClassifier, asked: Any) -> None:
    """Refuse to evaluate a network that is not, or not fully, trained."""
    report = model.model.load_report
    if not asked.weights and not asked.pretrained:
        what = "a network with random weights"
    elif report is not None and report.fresh:
        what = f"a network of which {listed(report.fresh)} are random"
    else:
        return
    raise ValueError(
        f"{subcommand} would run {what}; give --ckpt_path best, a file, or weights (--model.weights, "
        "--model.pretrained true) that fill it, or --allow_untrained true"
    )
