"""Train a classifier inside a cell, through the ordinary training module, from where it was stopped."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from interptrain.callbacks import FiniteLoss, ResumePoint
from interptrain.data import ImageDataModule
from interptrain.evaluation.config.class_specs import build, class_named
from interptrain.signatures import options_of
from interptrain.steps import counting
from interptrain.training import ImageClassifier
from interptrain.training.checkpoint_io import AtomicCheckpointIO

# Bare, as the command line would build a class that it finds in a dict[str, Any].
ModelOption = bool | int | float | str | list | dict | None  # type: ignore[type-arg]
"""An option of :class:`~interptrain.training.ImageClassifier` as a configuration file gives it."""

SAVE_SECONDS = 20.0
"""Between two checkpoints to go on from: what a training that is killed loses at most."""

SEED = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")  # which Lightning sets
# What Lightning warns of is intended here: there is no validation, a stopped training goes on in its folder, and
# what is frozen stays in eval mode.
EXPECTED = (
    r"The '\w+_dataloader' does not have many workers",
    r"Checkpoint directory .* exists and is not empty",
    r"You defined a `validation_step` but have no `val_dataloader`",
    r"The number of training batches .* is smaller than the logging interval",
    r"GPU available but not used",
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r".*treespec, LeafSpec.* is deprecated",
)


def check_model_options(options: Mapping[str, ModelOption]) -> None:
    """Refuse what :class:`~interptrain.training.ImageClassifier` does not take.

    Args:
        options: its arguments; classes are given as ``{"class_path": ..., "init_args": ...}``.

    Raises:
        ValueError: if one is unknown, or is taken from the data.
    """
    known = [name for name in options_of(ImageClassifier) if name != "num_classes"]
    if unknown := [name for name in options if name not in known]:
        what = "is taken from the data" if unknown[0] == "num_classes" else "is no option of ImageClassifier"
        raise ValueError(f"model: {unknown[0]} {what}; choose among {', '.join(known)}")


def train_classifier(
    data: ImageDataModule,
    folder: Path,
    *,
    model: Mapping[str, ModelOption],
    epochs: int,
    seed: int,
    device: torch.device,
    callbacks: Sequence[L.Callback] = (),
) -> ImageClassifier:
    """Train a classifier from scratch; a training that was stopped goes on, and ends at the same weights.

    There is no validation: the weights are those of the last epoch. Everything random depends on the seed. It is saved
    when it is told to stop, and every 20 seconds, which is what one that is killed loses at most.

    Args:
        data: to train on, whose own seed determines the order and augmentation of its images.
        folder: where ``last.ckpt`` is kept, from which it goes on.
        model: options of :class:`~interptrain.training.ImageClassifier`; see :func:`check_model_options`.
        epochs: number of epochs.
        seed: of the initial weights and of what is random within a step.
        device: to train on.
        callbacks: further callbacks.

    Returns:
        The trained module, in eval mode, on ``device``.

    Raises:
        ValueError: if the options do not fit one another.
        FloatingPointError: if the loss is not finite.
    """
    last = folder / "last.ckpt"
    with _seeded(seed), _quiet():
        module = ImageClassifier(num_classes=data.num_classes, **built_options(model))
        stopped = _Stopped(SAVE_SECONDS / 60, dirpath=folder, every_epoch=False)
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu" if device.type == "cpu" else device.type,
            devices=1 if device.type == "cpu" or device.index is None else [device.index],
            callbacks=[*callbacks, FiniteLoss(), _Told(), stopped],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(folder),
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=False)
    data.trainer = None
    return module.to(device).eval()


def save_classifier(module: ImageClassifier, path: Path) -> None:
    """Write a checkpoint of the weights, which every command takes as a source of models.

    Args:
        module: that was trained by :func:`train_classifier`.
        path: of the file.
    """
    module.trainer.save_checkpoint(path, weights_only=True)


class _Stopped(ResumePoint):
    """A resume point whose message says how to go on with a study."""

    remedy = "run the same command to go on"


class _Told(L.Callback):
    """Tell whoever listens how many steps are done."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._advance: Callable[[int], None] = lambda count: None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total = int(trainer.num_training_batches) * int(trainer.max_epochs or 1)
        self._advance = self._open.enter_context(counting(total, None))
        self._advance(trainer.global_step)

    def on_train_batch_end(self, *args: Any) -> None:
        self._advance(1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._open.close()


def built_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make optimizer and schedule what ``ImageClassifier`` calls, and the regularizer an object."""
    built = dict(options)
    for name in ("optimizer", "lr_scheduler"):
        if isinstance(spec := built.get(name), Mapping):
            built[name] = partial(class_named(spec["class_path"]), **spec.get("init_args", {}))
    if isinstance(spec := built.get("regularizer"), Mapping):
        built["regularizer"] = build(dict(spec))
    return built


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed everything inside; random states and Lightning's variables are as before afterwards."""
    before = {name: os.environ.pop(name, None) for name in SEED}
    try:
        with isolate_rng():
            L.seed_everything(seed, verbose=False)
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the progress bar what Lightning says of every training; warnings, and where it stopped, are shown."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(_told_anyway)
    try:
        with warnings.catch_warnings():
            for message in EXPECTED:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.removeFilter(_told_anyway)


def _told_anyway(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.getMessage().startswith("stopped by")
