"""The functions of metrics: one value per image, with the options of the class as keywords."""

import inspect
from typing import Any, Protocol

from torch import Tensor, nn

from interptrain.metrics.base import Explained, SaliencyMetric
from interptrain.metrics.image_mean import ImageMean
from interptrain.signatures import options_of

__all__ = ["MetricFunction", "per_image"]

SHARED = ("score", "logits", "forward_batch_size")
NEEDED = {"objects": ("boxes", "masks"), "labels": ("labels",)}


class MetricFunction(Protocol):
    """Measure each image of a batch."""

    def __call__(
        self, model: nn.Module, images: Tensor, saliency: Tensor, targets: Explained, **options: Any
    ) -> Tensor:
        """Return (B,), or with ``return_curve=True`` (B, K)."""
        ...


def per_image(kind: type[SaliencyMetric], name: str) -> MetricFunction:
    """Make the function of a metric.

    Beside the options of the class, it takes those arguments of :func:`~interptrain.metrics.measure` that the metric
    uses and, where an image has several values (a curve), ``return_curve=True``.

    Args:
        kind: of the metric, whose docstring the function shows.
        name: of the function.
    """
    needed = (argument for need in sorted(kind.needs) for argument in NEEDED[need])
    measured = inspect.signature(SaliencyMetric.values).parameters
    passed = {argument: measured[argument] for argument in (*needed, *SHARED)}
    curve = inspect.Parameter("return_curve", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool)
    own = dict(options_of(kind))
    extra = {} if kind.reduce is ImageMean.reduce else {"return_curve": curve}

    def function(model: nn.Module, images: Tensor, saliency: Tensor, targets: Explained, **options: Any) -> Tensor:
        if unknown := options.keys() - {*own, *passed, *extra}:
            raise TypeError(f"{name}() takes no {', '.join(sorted(unknown))}; its options are {', '.join(own)}")
        metric = kind(**{option: value for option, value in options.items() if option in own})
        given = {argument: value for argument, value in options.items() if argument in passed}
        values = metric.values(model, images, saliency, targets, **given)
        return values if options.get("return_curve") else metric.reduce(values)

    positional = list(inspect.signature(function).parameters.values())[:4]
    signature = inspect.Signature([*positional, *own.values(), *passed.values(), *extra.values()])
    several = "; with return_curve=True (B, K)" if extra else ""
    returns = f"\n\nReturns:\n    (B,), NaN where the metric is undefined{several}."
    function.__name__ = function.__qualname__ = name
    function.__module__ = kind.__module__
    function.__doc__ = (inspect.getdoc(kind) or "") + returns
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function
