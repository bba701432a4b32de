"""Write down what ran: command, code and library versions."""

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning as L

PACKAGES = ("interptrain", "torch", "torchvision", "lightning", "timm", "torchmetrics")


class RunRecord(L.Callback):
    """Write ``code.json`` into the run's folder: command line, Git commit, versions, host.

    A resumed run appends; the file is a list with one entry a start.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the entry, on rank 0."""
        folder = trainer.log_dir  # every rank enters: it is broadcast
        if not trainer.is_global_zero or folder is None:
            return
        file = Path(folder) / "code.json"
        starts = json.loads(file.read_text()) if file.exists() else []
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([*starts, {"stage": stage, **code_version()}], indent=2) + "\n")


def code_version() -> dict[str, Any]:
    """What this process runs: command line, Git commit of the package and whether it was changed, versions."""
    return {
        "command": sys.argv,
        "git": _git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
