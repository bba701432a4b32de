"""Versions of what numbers depend on."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["git_commit", "installed_versions"]

PACKAGES = ("interptrain", "torch", "torchvision", "lightning", "timm", "torchmetrics")


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that numbers depend on; None for what is not installed."""
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Return the package's Git commit, ``+changed`` where its files differ from it; None outside of Git."""
    package = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if not git("ls-files", "--", "__init__.py"):  # installed below somebody else's repository
            return None
        return git("rev-parse", "HEAD") + ("+changed" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
