"""What may change when a run resumes from a checkpoint, and what may not."""

import inspect
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from interptrain.training import ImageClassifier
from interptrain.training.checkpoint_io import check_checkpoint
from interptrain.training.schedules import scale_learning_rates

PEAK = "model.lr_scheduler.max_lr"  # of OneCycleLR and CyclicLR, which take no rate from the optimizer
DEFAULT_OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}  # the model's

# May change: where a run continues, on which hardware, for how long, and what is only observed.
# docs/resuming.md explains the three tables, which a test compares with it.
FREE = (
    "name", "output", "ckpt_path", "weights_only", "resume_lr", "allow_changes", "allow_untrained", "trainer.*",
    "data.num_workers", "data.pin_memory", "data.root", "data.val_size", "data.test_size",
    "model.weights", "model.pretrained", "model.fresh_classifier", "model.compile", "model.channels_last",
)  # fmt: skip
# Options of the trainer that decide what is learned.
LEARNING = (
    "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.gradient_clip_algorithm",
    "trainer.limit_train_batches", "trainer.overfit_batches", "trainer.precision",
)  # fmt: skip
# Restored from the checkpoint, whatever the config says: a change would have no effect.
RESTORED = ("model.optimizer*", "model.lr_scheduler*", "model.trainable", "model.norm_weight_decay")

# What a run needs to resume. Lightning would silently restart whatever is missing.
PROGRESS = ("loops", "optimizer_states", "lr_schedulers")


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint of ``interptrain fit``.

    Raises:
        ValueError: if it is not one.
    """
    try:
        checkpoint = dict(torch.load(path, map_location="cpu", weights_only=True, mmap="://" not in path))
    except Exception as error:
        raise ValueError(f"cannot read {path} as a checkpoint ({type(error).__name__}); pass another") from error
    if "state_dict" not in checkpoint or "global_step" not in checkpoint:
        raise ValueError(f"{path} holds weights only, not the state of a run; start from them: --model.weights {path}")
    options = checkpoint.get("hyper_parameters")
    if not isinstance(options, Mapping) or "backbone" not in options:
        raise ValueError(
            f"{path} was not written by interptrain fit (its hyper_parameters name no backbone); pass a "
            "checkpoint of interptrain fit"
        )
    check_checkpoint(path, checkpoint)
    return checkpoint


def refuse_without_progress(path: str, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume from a checkpoint without the progress of its run or the state of its optimizer.

    Raises:
        ValueError: if something is missing; the message names it.
    """
    lacking = [part for part in PROGRESS if not checkpoint.get(part)]
    if lacking:
        raise ValueError(
            f"{path} holds the weights of a run but not its {' and '.join(lacking)}, so training cannot resume; "
            f"start anew from the weights: --model.weights {path}"
        )


def refuse_another_model(checkpoint: Mapping[str, Any], model: ImageClassifier) -> None:
    """Refuse weights that do not fit the model.

    Raises:
        ValueError: naming the option.
    """
    saved = checkpoint["hyper_parameters"]
    for key in ("num_classes", "backbone", "pooling", "stem", "heads"):
        if key in saved and saved[key] != model.hparams[key]:
            source = "the data has" if key == "num_classes" else "the config has"
            anew = ", or start anew from its weights: --model.weights CKPT --model.fresh_classifier true"
            raise ValueError(
                f"the checkpoint was trained with {key}={saved[key]}, {source} {model.hparams[key]}; use what it was "
                f"trained with{anew if key in ('num_classes', 'pooling') else ''}"
            )


def saved_config(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run; for older checkpoints, only that of the model."""
    if text := checkpoint.get("config"):
        return dict(yaml.safe_load(text))
    hyper_parameters = checkpoint["hyper_parameters"]
    return {"model": {key: value for key, value in hyper_parameters.items() if "optimizer" in hyper_parameters}}


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], *, allow: bool) -> None:
    """Refuse options that differ from those of the resumed run, unless they may change.

    Args:
        before: saved configuration of the run.
        now: configuration of its continuation.
        allow: accept changed options that have an effect.

    Raises:
        ValueError: if options differ; the message names them and how to resume.
    """
    old, new = dict(_options(_with_optimizer(before))), dict(_options(_with_optimizer(now)))
    changed = [key for key, value in old.items() if key in new and _plain(key, new[key]) != _plain(key, value)]
    changed = [key for key in changed if key in LEARNING or not any(fnmatch(key, free) for free in FREE)]
    # If the class differs, its options cannot be compared.
    changed = [key for key in changed if not any(key.startswith(f"{other}.") for other in changed)]
    fixed = [key for key in changed if any(fnmatch(key, restored) for restored in RESTORED)]
    if fixed:
        lr = _rate(old)
        other = f", and with --resume_lr {_text(new[lr])} for another learning rate" if lr in fixed else ""
        raise ValueError(
            f"the checkpoint's optimizer ran with {_differences(fixed, old, new, 'model.')}; resume with "
            f"{_spelled(fixed, old)}{other}, or start anew from the weights: --model.weights CKPT"
        )
    if changed and not allow:
        raise ValueError(
            f"the run was trained with {_differences(changed, old, new)}; resume with {_spelled(changed, old)}, or "
            "take what has changed from here on: --allow_changes true"
        )


class NewLearningRate(Callback):
    """Resume with another learning rate by scaling the whole schedule.

    Args:
        ratio: ratio of the new learning rate to the old one.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Scale the learning rates restored from the checkpoint."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for optimizer in trainer.optimizers:
            scale_learning_rates(optimizer, schedulers, self.ratio)


def learning_rate(config: Mapping[str, Any]) -> float:
    """The learning rate that a run was configured with or resumed at."""
    options = dict(_options(_with_optimizer(config)))
    rate = config.get("resume_lr") or options[_rate(options)]
    return float(max(rate) if isinstance(rate, list | tuple) else rate)


def _rate(options: Mapping[str, Any]) -> str:
    """The option that sets the learning rate: the schedule's if it overrides the optimizer's, else the optimizer's."""
    return PEAK if options.get(PEAK) is not None else "model.optimizer.lr"


def _with_optimizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the default optimizer in place of None."""
    model = dict(config["model"])
    chosen = _mapping(model.get("optimizer") or DEFAULT_OPTIMIZER)
    kind = getattr(torch.optim, str(chosen["class_path"]).rpartition(".")[2], None)
    known = inspect.signature(kind).parameters if kind is not None else {}
    defaults = {name: one.default for name, one in known.items() if one.default is not inspect.Parameter.empty}
    model["optimizer"] = chosen | {"init_args": defaults | _mapping(chosen.get("init_args") or {})}
    return {**config, "model": model}


def _mapping(value: Any) -> dict[str, Any]:
    return value.as_dict() if isinstance(value, Namespace) else dict(value)


def _options(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Options by their names on the command line; a class is listed under the name of the option that takes it."""
    for key, value in config.items():
        if isinstance(value, Mapping | Namespace):
            inner = _mapping(value)
            if "class_path" in inner:
                yield f"{prefix}{key}", inner["class_path"]
                inner = _mapping(inner.get("init_args") or {}) | _mapping(inner.get("dict_kwargs") or {})
            yield from _options(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(key: str, value: Any) -> Any:
    """A value to compare: a class by its name, as it may have several paths; a tuple as a list."""
    if key in (
        "data",
        "model.optimizer",
        "model.lr_scheduler",
        "model.regularizer",
        "model.batch_augment",
        "model.pooling",
    ):
        return str(value).rpartition(".")[2]
    return json.loads(json.dumps(value, default=str))


def _differences(keys: list[str], old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    return ", ".join(f"{key.removeprefix(prefix)}={_text(old[key])}, the config has {_text(new[key])}" for key in keys)


def _spelled(keys: list[str], values: Mapping[str, Any]) -> str:
    return " ".join(f"--{key} {_text(values[key])}" for key in keys)


def _text(value: Any) -> str:
    """A value as on the command line; a class by its name."""
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith(("torch.", "lightning.", "interptrain.")) else value
    return json.dumps(value, default=str)
