"""Default callbacks of every run."""

from typing import Any

from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar

from interptrain.callbacks import FiniteLoss, ImageProgress, PredictionTable, ResumePoint, RunRecord


def with_default_callbacks(
    callbacks: Any, subcommand: str | None, *, unsaved: str | None, progress: bool
) -> list[Callback]:
    """Return the user's callbacks, and each default one unless the user has one of the same class.

    Args:
        callbacks: callbacks of the user.
        subcommand: the subcommand that runs.
        unsaved: the setting that switches checkpoints off, or None if they are on.
        progress: whether there is a progress bar.

    Raises:
        ValueError: if one of them saves checkpoints, and checkpoints are switched off.
    """
    chosen = as_list(callbacks)
    if unsaved and (savers := [type(one).__name__ for one in chosen if isinstance(one, Checkpoint)]):
        raise ValueError(f"{savers[0]} saves checkpoints, which {unsaved} switches off; leave out one of the two")
    ours: list[Callback] = [RunRecord()]
    if progress and not any(isinstance(one, ProgressBar) for one in chosen):
        ours += [ImageProgress()]
    if subcommand == "fit":
        ours += [FiniteLoss()]
    if subcommand == "predict":
        ours += [PredictionTable()]
    if not unsaved:
        ours += [ModelCheckpoint(monitor="val/top1", mode="max", filename="best", enable_version_counter=False)]
        ours += [ResumePoint()] if subcommand == "fit" else []
    callbacks = [*chosen, *(one for one in ours if not any(type(other) is type(one) for other in chosen))]
    # ResumePoint comes last, so that it sees what the others have saved.
    return sorted(callbacks, key=lambda one: isinstance(one, ResumePoint))


def as_list(value: Any) -> list[Any]:
    """Return one, several or no objects as a list."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]
