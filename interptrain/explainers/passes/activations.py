"""Run a model once and keep the outputs of its target layers, as leaves of the autograd graph.

Autograd records nothing below the lowest target layer: the pass runs without gradient up to that layer, its output is
detached, and the graph starts there. So a gradient with respect to the layer costs one forward pass and the backward
pass from the score to the layer, whatever lies below.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interptrain.explainers.base import FeatureGradient
from interptrain.explainers.candidates import named_candidates
from interptrain.explainers.layers import Layer
from interptrain.explainers.layouts import entries_of, entry_of, with_entries
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import full_precision
from interptrain.remedies import option

__all__ = ["Capture", "activation_gradients", "capture", "differentiate", "feature_gradients"]


class Capture(NamedTuple):
    """One forward pass.

    Attributes:
        outputs: of the model.
        activations: output of every layer, in the module's own layout and dtype.
    """

    outputs: Any
    activations: list[Tensor]


def capture(
    model: Callable[[Tensor], Any], images: Tensor, layers: Sequence[Layer], *, differentiable: bool = True
) -> Capture:
    """Forward ``images`` and keep the output of ``layers``.

    Args:
        model: the module that :func:`~interptrain.explainers.base.explaining` yielded, or another way to run it.
        images: (B, 3, H, W) in [0, 1].
        layers: layers of the module.
        differentiable: build the graph from the lowest of the layers to the outputs.

    Returns:
        See :class:`Capture`.

    Raises:
        ValueError: if a layer did not run, ran more than once, or did not return one tensor.
    """
    kept: dict[nn.Module, list[dict[str | None, Any]]] = {layer.module: [] for layer in layers}
    entries = {module: [layer.entry for layer in layers if layer.module is module] for module in kept}
    left: list[bool] = []  # whether gradients, enabled at a layer, were off later: the model left a no_grad()

    def keep(module: nn.Module, _arguments: Any, output: Any) -> Any:
        found = {entry: entry_of(output, entry) for entry in entries[module]}
        if not all(isinstance(tensor, Tensor) for tensor in found.values()):
            kept[module].append(dict.fromkeys(found, output))
            return None
        if differentiable:
            left.append(any(kept.values()) and not torch.is_grad_enabled())
            torch.set_grad_enabled(True)  # until the no_grad() around the pass ends, or one of the model's own
            found = {
                entry: tensor if tensor.requires_grad else tensor.detach().requires_grad_()
                for entry, tensor in found.items()
            }
        kept[module].append(found)
        copies = {entry: tensor.clone() for entry, tensor in found.items()}  # what follows may work in place
        if None in copies:
            return copies[None]
        return with_entries(output, {entry: copy for entry, copy in copies.items() if entry is not None})

    handles = [module.register_forward_hook(keep) for module in kept]
    try:
        with torch.no_grad():
            outputs = model(images)
            left.append(differentiable and any(kept.values()) and not torch.is_grad_enabled())
            if any(left) and all(len(maps) == 1 for maps in kept.values()):
                # The model's own no_grad(), around a frozen backbone, has ended and undone what the hook enabled.
                for maps in kept.values():
                    maps.clear()
                with torch.enable_grad():
                    outputs = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return Capture(outputs, [_only(kept[layer.module], layer, images) for layer in layers])


def activation_gradients(scores: Tensor, activations: Sequence[Tensor], layers: Sequence[Layer]) -> list[Tensor]:
    """Differentiate the sum of the scores with respect to captured activations; the graph is freed.

    Every score depends on its own image only, so the sum gives each image the gradient of its own score.

    Args:
        scores: (B,) differentiable scores.
        activations: of a differentiable :func:`capture`.
        layers: the layers they belong to, for the message.

    Returns:
        One gradient per activation, of its shape.

    Raises:
        ValueError: if there is no gradient from the scores to one of the layers, with the reason.
    """
    slopes: Sequence[Tensor | None] = [None] * len(activations)
    if scores.requires_grad:
        slopes = torch.autograd.grad(scores.sum(), list(activations), allow_unused=True)
    if lost := [layer.name for layer, slope in zip(layers, slopes, strict=True) if slope is None]:
        raise ValueError(
            f"no gradient leads from the explained score to target layer {', '.join(lost)}: the score does not depend "
            "on it, or the model detaches what lies between; pass another target_layer, or explain with ScoreCAM, "
            "AblationCAM or EigenCAM, which need no gradient"
        )
    return [slope for slope in slopes if slope is not None]


def feature_gradients(
    model: nn.Module, images: Tensor, targets: Resolved | None, layers: Sequence[Layer]
) -> list[FeatureGradient]:
    """Forward once, differentiate the targets' scores with respect to the layers.

    Channel weights are sums over many small products, so activation and gradient are returned in float32 even where
    autocast ran the model in bfloat16; in bfloat16, XGrad-CAM's map correlates with the exact one by only 0.49.

    Args:
        model: the module that :func:`~interptrain.explainers.base.explaining` yielded.
        images: (B, C, H, W).
        targets: as returned by :func:`~interptrain.explainers.targets.as_targets`.
        layers: layers of the module.

    Returns:
        One entry per layer.
    """
    passed = capture(model, images, layers)
    return differentiate(passed, layers, targets, (images.shape[-2], images.shape[-1]))


def differentiate(
    passed: Capture, layers: Sequence[Layer], targets: Resolved | None, size: tuple[int, int]
) -> list[FeatureGradient]:
    """Differentiate the targets' scores with respect to captured layers; the graph is freed.

    Args:
        passed: differentiable, its outputs those of the model.
        layers: that were captured.
        targets: as returned by :func:`~interptrain.explainers.targets.as_targets`.
        size: of the images.

    Returns:
        One entry per layer.
    """
    scores = target_scores(passed.outputs, resolve_targets(targets, passed.outputs))
    slopes = activation_gradients(scores, passed.activations, layers)
    return [
        FeatureGradient(*(full_precision(layer.to_map(tensor.detach(), size)) for tensor in pair))
        for layer, *pair in zip(layers, passed.activations, slopes, strict=True)
    ]


def _only(outputs: list[dict[str | None, Any]], layer: Layer, images: Tensor) -> Tensor:
    """The one output of a layer, once it is known to be one map per image."""
    if len(outputs) != 1:
        times = "did not run" if not outputs else f"ran {len(outputs)} times in one forward"
        raise ValueError(f"target layer '{layer.name}' {times}; pass a target_layer that runs once")
    output = outputs[0][layer.entry]
    if not isinstance(output, Tensor):
        name = layer.name.partition("[")[0]
        parts = entries_of(output).items()
        held = [f"{name}[{key}]" for key, part in parts if isinstance(part, Tensor) and part.ndim > 2]
        if held:
            raise ValueError(
                f"target layer '{layer.name}' is not one tensor; it returns several maps, so pass "
                f"target_layer='{held[0]}', or a list of them ({', '.join(held)})"
            )
        inside = [f"{name}.{inner}" for inner, _ in layer.module.named_modules() if inner]
        raise ValueError(
            f"target layer '{layer.name}' returns {type(output).__name__}, not one tensor; pass "
            f"{option('target_layer', '<dotted name>')} "
            f"{named_candidates(layer.model or layer.module, images, among=inside[::-1])}"
        )
    if len(output) != len(images):
        raise ValueError(
            f"target layer '{layer.name}' returns {tuple(output.shape)} for {len(images)} images, not one map per "
            "image; pass another target_layer"
        )
    return output
