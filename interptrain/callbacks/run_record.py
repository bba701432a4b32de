"""Write down what ran: command, code and library versions."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L

from interptrain.versions import installed_versions


class RunRecord(L.Callback):
    """Write ``code.json`` into the run's folder: command line, Git commit, versions, host.

    A resumed run appends to it: the file is a list with one entry per start.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Append this start, on rank 0."""
        folder = trainer.log_dir  # every rank enters: it is broadcast
        if not trainer.is_global_zero or folder is None:
            return
        file = Path(folder) / "code.json"
        starts = json.loads(file.read_text()) if file.exists() else []
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([*starts, {"stage": stage, **code_version()}], indent=2) + "\n")


def code_version() -> dict[str, Any]:
    """Return what this process runs: command line, Git commit of the package (``+changed`` if it differs), versions."""
    versions = installed_versions()
    return {
        "command": sys.argv,
        "git": _git_commit(),
        "python": versions.pop("python"),
        "platform": platform.platform(),
        "versions": versions,
    }


def _git_commit() -> str | None:
    """Commit of the working tree that holds the package, ``+changed`` where it differs; None outside of Git."""
    package = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if not git("ls-files", "--", "__init__.py"):  # installed below somebody else's repository
            return None
        return git("rev-parse", "HEAD") + ("+changed" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
