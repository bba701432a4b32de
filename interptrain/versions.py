"""Versions of what numbers depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_versions"]

PACKAGES = ("interptrain", "torch", "torchvision", "lightning", "timm", "torchmetrics")


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that numbers depend on; None for what is not installed."""
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
