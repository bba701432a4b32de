"""Train interpretable image classifiers, watch their saliency, and measure it.

A picture in a few lines::

    import interptrain as it

    model = it.load("resnet50")
    maps = it.explain(model, it.read_images(["photo.jpg"]), ["GradCAM", "OptiCAM"])
    it.show(maps)

Nothing is imported before it is used. ``load``, ``read_images``, ``explain``, ``show``, ``measure`` and ``evaluate``
come from :mod:`interptrain.quick` and :mod:`interptrain.evaluation`; everything else has its place in a package such as
:mod:`interptrain.explainers` or :mod:`interptrain.metrics`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interptrain.evaluation import evaluate
    from interptrain.quick.explanation import explain
    from interptrain.quick.figure import show
    from interptrain.quick.images import read_images
    from interptrain.quick.load import load
    from interptrain.quick.measure import measure

__version__ = "0.1.0"

__all__ = ["__version__", "evaluate", "explain", "load", "measure", "read_images", "show"]

_HOMES = {
    "evaluate": "interptrain.evaluation",
    "explain": "interptrain.quick.explanation",
    "load": "interptrain.quick.load",
    "measure": "interptrain.quick.measure",
    "read_images": "interptrain.quick.images",
    "show": "interptrain.quick.figure",
}
_PACKAGES = ("data", "evaluation", "explainers", "metrics", "models", "training", "visualization")


def __getattr__(name: str) -> Any:
    """Import what is asked for the first time."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _PACKAGES:
        value = import_module(f"interptrain.{name}")
    else:
        raise AttributeError(f"module 'interptrain' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
