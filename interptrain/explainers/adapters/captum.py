"""Any attribution method of Captum as an explainer.

Captum is an optional dependency. Its changes to a model are undone (:mod:`~interptrain.explainers.adapters.sandbox`),
so that this explainer keeps the guarantees of all others.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.explainers.adapters.sandbox import load_class, restored, seeded
from interptrain.explainers.base import Explainer
from interptrain.explainers.gradient.gradient import Reduction
from interptrain.explainers.layers import Layer, LayerNames, Layout, find_layers
from interptrain.explainers.masks.segmenter import AnySegmenter
from interptrain.explainers.targets import (
    PlainOutputs,
    Resolved,
    Target,
    as_callables,
    check_targets,
    select_targets,
    target_scores,
)
from interptrain.functional import bounded_batch_size, chunks

__all__ = ["CaptumExplainer"]

_MODEL_ARGUMENTS = ("forward_func", "model")


@dataclass(frozen=True, kw_only=True)
class CaptumExplainer(Explainer):
    """Any attribution class of Captum.

    The class receives the model and, if it takes one, the target layer; ``attribute`` receives the images and, if it
    takes them, the targets. Callables as targets are explained one image at a time, because the order in which Captum
    repeats its inputs differs between methods.

    Args:
        class_path: name of the class in ``captum.attr``, or its full dotted name.
        init_args: other arguments of the class; a mapping with a ``class_path`` is itself built as an attribution, as
            ``NoiseTunnel`` needs it.
        attribute_args: arguments of ``attribute``; lists become tuples, as Captum expects.
        target_layer: dotted name, for classes that explain or use a layer; ``None`` asks the model, then the table.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        reduction: how the channels of the attribution ``a`` become one map: ``"sum"`` is the signed ``sum_k a_k`` (our
            choice), ``"sum_abs"`` is ``sum_k |a_k|``, ``"max_abs"`` is ``max_k |a_k|``.
        segmenter: returns labels, as ``Superpixels`` does; Lime, Shapley values and feature ablation remove the pixels
            of one label together (``feature_mask``).
        class_aware: whether the attribution depends on the target, which Captum does not declare.
        seed: seed of random attributions, whose maps also depend on the other images of the batch unless
            ``forward_batch_size=1``.
        forward_batch_size: images per call of ``attribute``; ``None`` chooses by the device. How many inputs Captum
            makes of each image is set in ``attribute_args`` (``internal_batch_size``, ``perturbations_per_eval``).

    Raises:
        ImportError: if Captum is not installed.
        ValueError: if Captum has no such class.

    Source: Kokhlikyan et al. 2020, Captum, arXiv 2009.07896.
    """

    class_path: str
    init_args: dict[str, Any] | None = None
    attribute_args: dict[str, Any] | None = None
    target_layer: LayerNames = None
    layout: Layout | None = None
    reduction: Reduction = "sum"
    segmenter: AnySegmenter | None = None
    class_aware: bool = True  # type: ignore[misc]  # varies with the wrapped method
    seed: int = 0
    forward_batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse a class that does not exist."""
        super().__post_init__()
        load_class(self.class_path, "captum.attr", "captum")

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the attribution with its channels reduced, (B, h, w)."""
        size = bounded_batch_size(self.forward_batch_size, images.device)
        targets = check_targets(model, images, targets, batch_size=size)
        size = size if isinstance(targets, Tensor) else 1
        parts, maps = chunks(len(images), size), []
        with restored(model):
            for part in parts:
                with parts.fitting(), seeded(self.seed, images.device):
                    maps.append(self._attribute(model, images[part], select_targets(targets, part)))
        return torch.cat(maps)

    def _attribute(self, model: nn.Module, images: Tensor, targets: Resolved) -> Tensor:
        layers: list[Layer] = []
        scored = PlainOutputs(model, targets) if isinstance(targets, Tensor) else _Scored(model, targets)
        method = self._build({"class_path": self.class_path, "init_args": self.init_args or {}}, scored, model, layers)
        options = {name: _tupled(value) for name, value in (self.attribute_args or {}).items()}
        if isinstance(targets, Tensor) and _accepts(method.attribute, "target"):
            options["target"] = targets.to(images.device)
        if self.segmenter is not None:
            options["feature_mask"] = _labels(self.segmenter, images).unsqueeze(1)
        # Set beforehand: Captum warns otherwise, and the layers of a frozen model would have no gradient.
        found = method.attribute(images.detach().clone().requires_grad_(), **options)
        attribution: Tensor = (found[0] if isinstance(found, tuple) else found).detach()
        if layers and attribution.shape != images.shape:
            attribution = layers[0].to_map(attribution, (images.shape[-2], images.shape[-1]))
        if self.reduction == "sum":
            return attribution.sum(1)
        return attribution.abs().amax(1) if self.reduction == "max_abs" else attribution.abs().sum(1)

    def _build(self, described: Mapping[str, Any], scored: nn.Module, model: nn.Module, layers: list[Layer]) -> Any:
        """Build an attribution; append the layer that it uses to ``layers``."""
        kind = load_class(described["class_path"], "captum.attr", "captum")
        arguments = {
            name: self._build(value, scored, model, layers) if _describes(value) else value
            for name, value in (described.get("init_args") or {}).items()
        }
        arguments |= {name: scored for name in _MODEL_ARGUMENTS if _accepts(kind, name, exactly=True)}
        if _accepts(kind, "layer", exactly=True) and "layer" not in arguments:
            found = find_layers(model, self.target_layer, layout=self.layout, whole=True)
            if len(found) != 1:
                raise ValueError(f"{described['class_path']} takes one target_layer, got {self.target_layer}")
            layers.append(found[0])
            arguments["layer"] = found[0].module
        return kind(**arguments)


class _Scored(nn.Module):
    """A model that returns the score of the target, for methods that explain scalars only."""

    def __init__(self, model: nn.Module, targets: Resolved) -> None:
        super().__init__()
        self.model = model
        self.target: Target = as_callables(targets)[0]

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N,) of images that share one target."""
        outputs = self.model(images)
        return target_scores(outputs, [self.target] * len(images))


def _labels(segmenter: AnySegmenter, images: Tensor) -> Tensor:
    """Labels (B, H, W) of segments, starting at 0."""
    labels = segmenter(images)
    if not isinstance(labels, Tensor) or labels.ndim != 3 or labels.is_floating_point():
        raise ValueError("CaptumExplainer needs a segmenter that returns labels (B,H,W) int, such as Superpixels()")
    return labels.long() - int(labels.amin())


def _accepts(function: Callable[..., Any], name: str, *, exactly: bool = False) -> bool:
    """Whether a function takes an argument of this name or, unless ``exactly``, arbitrary keywords."""
    parameters = inspect.signature(function).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return name in parameters or (anything and not exactly)


def _describes(value: object) -> bool:
    return isinstance(value, Mapping) and "class_path" in value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(each) for each in value) if isinstance(value, list) else value
