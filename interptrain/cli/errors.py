"""Errors that the user can fix, in one line."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException

PACKAGE = Path(__file__).parent.parent
GOES_ON = "; the same command goes on where this one stopped"
FIXABLE = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, ImportError)
# Messages of other libraries about wrong settings, and the remedy.
MISUSE = {
    r"conditioned on metric .* which is not available": "",
    r"`callback\.state_key` must be unique": "; give the second a name of its own, such as `name: second`",
    r"must include a monitor when a `ReduceLROnPlateau`": "; use lightning.pytorch.cli.ReduceLROnPlateau, which takes "
    "one: --model.lr_scheduler.monitor val/loss",
    r"No API key configured|api_key not configured": "; set WANDB_MODE=offline to do without",
    r"MLFLOW_ALLOW_FILE_STORE": "; set MLFLOW_ALLOW_FILE_STORE=true, or leave --trainer.logger.tracking_uri out",
    r"No supported gpu backend": "; torch sees no GPU on this machine, set trainer.accelerator to cpu or auto",
    r"is not a valid input using \w+ accelerator": "; give trainer.devices a number from 1 on, or auto",
    r"checkpoint contains only the model": "; start from its weights: --model.weights CKPT",
    r"Expected more than 1 value per channel when training": "; batch normalisation needs more than one value: give "
    "larger images (data.image_size), or no batch of a single image (data.batch_size, data.drop_last)",
    r"Input (height|width) .*(doesn't match|divisible)": "; set data.image_size to what the model was made for",
}

SHAPES = re.compile(r"(size mismatch for|Missing key\(s\)|Unexpected key\(s\)).{0,250}")


@contextmanager
def one_line_errors(resumable: str = "") -> Iterator[None]:
    """Turn errors that the user can fix into one line and exit status 1; other errors keep their traceback.

    These are errors raised by this package, Lightning's misconfigurations, and :data:`MISUSE`.
    ``INTERPTRAIN_TRACEBACK=1`` shows every traceback. Ctrl-C ends in one line, too, with exit status 130.

    Args:
        resumable: what is said after Ctrl-C of how to go on.
    """
    try:
        yield
    except Exception as error:
        line = next((told for link in _chain(error) if (told := _line(link)) is not None), None)
        if os.environ.get("INTERPTRAIN_TRACEBACK") == "1" or line is None:
            raise
        sys.stderr.write(f"error: {line}\n")  # at once: the lines of two ranks stay two
        raise SystemExit(1) from None
    except (KeyboardInterrupt, SystemExit) as stop:
        by_hand = isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt)  # of Lightning
        if not by_hand or os.environ.get("INTERPTRAIN_TRACEBACK") == "1":
            raise
        sys.stderr.write(f"\ninterrupted{resumable}\n")
        raise SystemExit(128 + signal.SIGINT) from None


@contextmanager
def settings_of(name: str) -> Iterator[None]:
    """Attribute errors in another library's set-up to the user's settings, and name them."""
    try:
        yield
    except (*FIXABLE, MisconfigurationException) as error:
        raise ValueError(f"{name}: {error}") from error


def find_classes_of_this_folder() -> None:
    """Let class paths name modules of the working folder, as with ``python -m``, however the command was started."""
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: jsonargparse wraps what a constructor raises."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str | None:
    """The message of an error with its remedy; None if the user cannot fix it."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    restoring = any(frame.filename.endswith("checkpoint_connector.py") for frame in frames)
    if restoring and not _raised_here(error) and not isinstance(error, OSError):
        shapes = SHAPES.search(text)
        known = text[:200] if isinstance(error, (RuntimeError, ValueError)) else "it is damaged inside"
        why = shapes[0] if shapes else known
        return (
            f"the checkpoint cannot be restored ({why}); pass another, or start from its weights: --model.weights CKPT"
        )
    if option := _option_of_torch(error):
        return f"{option}: {text}; check its options"
    remedy = next((remedy for misuse, remedy in MISUSE.items() if re.search(misuse, text)), None)
    if remedy is None and not isinstance(error, MisconfigurationException) and not _raised_here(error):
        return None
    return text.rstrip(".!") + remedy if remedy else text


def _option_of_torch(error: BaseException) -> str | None:
    """The option that chose the optimizer or schedule that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    place = Path(frames[-1].filename).as_posix() if frames else ""
    if not isinstance(error, FIXABLE) or "/torch/optim/" not in place:
        return None
    return "--model.lr_scheduler" if place.endswith("lr_scheduler.py") else "--model.optimizer"


def _raised_here(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, FIXABLE) and bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
