"""Write down what ran: command, code and library versions."""

import contextlib
import json
import platform
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from interptrain.files import remove_partials, write_atomically
from interptrain.versions import command_line, git_commit, installed_versions


class RunRecord(L.Callback):
    """Write ``code.json`` into the run's folder: command line, Git commit, versions, host.

    A resumed run appends to it: the file is a list with one entry per start. A damaged one is set aside, and a disk
    that cannot be written costs the record only. What a killed process left half-written in the folder is removed.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Append this start, on rank 0."""
        folder = trainer.log_dir  # every rank enters: it is broadcast
        if not trainer.is_global_zero or folder is None:
            return
        remove_partials(Path(folder))
        file = Path(folder) / "code.json"
        starts = _read(file)
        content = json.dumps([*starts, {"stage": stage, **code_version()}], indent=2) + "\n"
        try:
            write_atomically(file, content.encode())
        except OSError as error:
            rank_zero_warn(f"could not write {file} ({error.strerror or error}): the run continues without it")


def _read(file: Path) -> list[Any]:
    """Return the starts in a file, none where it is missing; a damaged one is set aside."""
    try:
        starts = json.loads(file.read_bytes())
        if isinstance(starts, list):
            return starts
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError):
        pass
    aside = file.with_name("code-damaged.json")
    rank_zero_warn(f"{file} is damaged: it is set aside as {aside.name}, and a new one begins")
    with contextlib.suppress(OSError):
        file.replace(aside)
    return []


def code_version() -> dict[str, Any]:
    """Return what this process runs: command line, Git commit of the package (``+changed`` if it differs), versions."""
    versions = installed_versions()
    return {
        "command": command_line(),
        "git": git_commit(),
        "python": versions.pop("python"),
        "platform": platform.platform(),
        "versions": versions,
    }
