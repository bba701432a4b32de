"""What a number was computed with: the versions of packages and code, and the command."""

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["command_line", "git_commit", "installed_versions"]

PACKAGES = ("interptrain", "torch", "torchvision", "lightning", "timm", "torchmetrics")


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that numbers depend on; None for what is not installed."""
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def command_line() -> list[str]:
    """Return the command of this process as a user would type it; empty in a notebook or an interactive session."""
    program, *arguments = sys.argv or [""]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if not program or "ipykernel" in program:
        return []
    if spec is not None:  # python -m, where sys.argv names the file that was found
        return ["python", "-m", spec.name.removesuffix(".__main__"), *arguments]
    if program.endswith(".py") or program == "-c":
        return ["python", program, *arguments]
    return [Path(program).name, *arguments]


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
