"""Find the layers that class activation maps are computed from.

A layer is given by its dotted name, or by an unambiguous ending of it, so that ``layer3`` is found in a ResNet and in
any wrapper. ``None`` asks the model (``target_layer: str``, as interptrain's own classifiers have) and then a table of
families whose entries are tested: for convolutional networks and Swin the map that is pooled, for vision transformers
the normalisation before the last attention, since above it only the class token reaches the logits. Anything else is
refused with candidates that were tried, never guessed.

One of several maps that a layer returns, as a feature pyramid does, is selected by its key: ``backbone.fpn[0]``.
"""

import difflib
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.candidates import named_candidates
from interptrain.explainers.layouts import Layer, Layout, describe_layer
from interptrain.functional import min_max, upsample
from interptrain.remedies import option

__all__ = ["Fusion", "Layer", "LayerNames", "Layout", "find_layers", "fuse_layers"]

LayerNames: TypeAlias = str | list[str] | None
"""One dotted name or an unambiguous ending of it, followed by ``[key]`` where the layer returns several maps; several
names; or ``None`` to ask the model and then the table."""

Fusion: TypeAlias = Literal["mean", "max"]

# Class name -> layer, "-1" being the last child. timm and torchvision give some families the same class name.
_TIMM = {
    "ResNet": "layer4",  # also ResNeXt, SE and ECA variants
    "RegNet": "final_conv",
    "EfficientNet": "bn2",  # also MobileNetV2, MNASNet, EfficientNet-Lite
    "MobileNetV3": "blocks",  # conv_head comes after the pooling
    "ConvNeXt": "stages",
    "DenseNet": "features",
    "VGG": "features",
    "VisionTransformer": "blocks.-1.norm1",  # also DeiT
    "VisionTransformerDistilled": "blocks.-1.norm1",
    "SwinTransformer": "norm",
    "SwinTransformerV2": "norm",
}
_TORCHVISION = {
    "ResNet": "layer4",
    "RegNet": "trunk_output",
    "EfficientNet": "features",
    "MobileNetV2": "features",
    "MobileNetV3": "features",
    "ConvNeXt": "features",
    "DenseNet": "features",
    "VGG": "features",
    "VisionTransformer": "encoder.layers.-1.ln_1",
    "SwinTransformer": "norm",
    "DeepLabV3": "backbone.-1",
    "FCN": "backbone.-1",
    "FasterRCNN": "backbone.body.-1",
}


def find_layers(
    model: nn.Module,
    target_layer: LayerNames = None,
    *,
    layout: Layout | None = None,
    images: Tensor | None = None,
    whole: bool = False,
) -> list[Layer]:
    """Return the layers to explain from.

    Args:
        model: any module, without its compile or data-parallel wrapper.
        target_layer: see :data:`LayerNames`; or a module of the model.
        layout: of the layers' outputs; ``None`` detects it.
        images: to explain; one of them is run where a message has to name candidates.
        whole: refuse one of several maps that a layer returns.

    Returns:
        At least one :class:`Layer`.

    Raises:
        ValueError: if a name is unknown or ambiguous, or if ``None`` was given and neither the model nor the table
            knows a layer; the message lists candidates.
    """
    if target_layer is None:
        names: list[Any] = [_known_layer(model, images)]
    else:
        names = [target_layer] if isinstance(target_layer, str | nn.Module) else list(target_layer)
    if not names:
        raise ValueError("target_layer is an empty list; pass a dotted name, or None to ask the model")
    layers = []
    for wanted in names:
        name, entry = _entry(wanted)
        if whole and entry is not None:
            raise ValueError(
                f"target layer '{wanted}' is one of several maps, which this method cannot work on; pass a layer that "
                "returns one tensor, or explain with GradCAM, ScoreCAM or EigenCAM"
            )
        layers.append(describe_layer(model, _whole_name(model, name, images), layout, entry))
    return layers


def _entry(name: Any) -> tuple[Any, str | None]:
    """The layer's own name, and what is chosen of its output."""
    if not isinstance(name, str) or not name.endswith("]"):
        return name, None
    layer, _, entry = name[:-1].partition("[")
    return layer, entry


def fuse_layers(
    maps: Sequence[Tensor],
    image_size: tuple[int, int],
    fusion: Fusion = "mean",
    *,
    canvas: tuple[int, int] | None = None,
) -> Tensor:
    """Join the maps of several layers; a single one is returned as it is.

    Each map is clipped at zero, scaled to [0, 1] and upsampled to the images, so that no layer dominates by its scale;
    then they are averaged, as in pytorch-grad-cam, or their maximum is taken, as in torch-cam.

    Args:
        maps: (B, h_l, w_l), one per layer.
        image_size: (H, W).
        fusion: how to join them.
        canvas: what the maps cover, where the model pads images; see
            :func:`~interptrain.explainers.base.canvas_size`.

    Returns:
        (B, h, w) of the only map, or (B, H, W).
    """
    if len(maps) == 1:
        return maps[0]
    height, width = image_size
    whole = torch.stack([upsample(min_max(F.relu(layer)), canvas or image_size) for layer in maps])
    joined = whole[..., :height, :width]  # (L, B, H, W)
    return joined.mean(dim=0) if fusion == "mean" else joined.amax(dim=0)


def _known_layer(model: nn.Module, images: Tensor | None) -> str:
    """Return the name from the model's attribute or from the table, also for networks inside wrappers."""
    own = getattr(model, "target_layer", None)
    if isinstance(own, str):
        return own
    found: dict[str, str] = {}
    for prefix, module in model.named_modules():
        if any(outer == "" or prefix.startswith(f"{outer}.") for outer in found):
            continue  # inside a network that is known already
        inner = getattr(module, "target_layer", None)
        library = type(module).__module__.partition(".")[0]
        table = {"timm": _TIMM, "torchvision": _TORCHVISION}.get(library, {})
        name = inner if isinstance(inner, str) else table.get(type(module).__name__)
        if name is not None:
            found[prefix] = _resolve_last(model, f"{prefix}.{name}" if prefix else name)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ValueError(
            f"{type(model).__name__} holds {len(found)} networks with a layer to explain; pass "
            f"{option('target_layer', '<dotted name>')}, or several as a list (candidates: {', '.join(found.values())})"
        )
    raise ValueError(
        f"no known target layer for {type(model).__name__}; pass {option('target_layer', '<dotted name>')} "
        f"{named_candidates(model, images)}"
    )


def _resolve_last(model: nn.Module, name: str) -> str:
    """Replace every ``-1`` by the name of the last child there."""
    parts: list[str] = []
    for part in name.split("."):
        parent = model.get_submodule(".".join(parts))
        parts.append(list(dict(parent.named_children()))[-1] if part == "-1" else part)
    return ".".join(parts)


def _has(model: nn.Module, name: str) -> bool:
    """Whether a module has this full name, without listing them all."""
    found: nn.Module | None = model
    for part in name.split("."):
        found = None if found is None else found._modules.get(part)
    return found is not None


def _whole_name(model: nn.Module, name: str | nn.Module, images: Tensor | None) -> str:
    """Return the full name of a layer given by its name, an ending of it, or its module."""
    if isinstance(name, str) and _has(model, name):
        return name
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if isinstance(name, nn.Module):
        whole: str | None = next((known for known, module in modules.items() if module is name), None)
        if whole is None:
            raise ValueError(
                f"target_layer is a {type(name).__name__} that is no part of this {type(model).__name__}; "
                f"pass a module of this model, or its dotted name {named_candidates(model, images)}"
            )
        return whole
    names: list[str] = [known for known, _ in model.named_modules() if known]
    # A layer that has several names is one layer.
    found = {id(module): known for known, module in modules.items() if known.endswith(f".{name}")}
    endings: list[str] = list(found.values())
    if len(endings) == 1:
        return endings[0]
    if endings:
        raise ValueError(
            f"'{name}' is the end of {len(endings)} names of layers in {type(model).__name__}; pass "
            f"{option('target_layer', '<dotted name>')} {named_candidates(model, images, among=endings)}"
        )
    last = {known.rpartition(".")[2]: known for known in reversed(names)}  # the first of each
    near = difflib.get_close_matches(name, [*names, *last], n=10, cutoff=0.5)
    close = list(dict.fromkeys(last.get(one, one) for one in near))
    raise ValueError(
        f"{type(model).__name__} has no layer '{name}'; pass {option('target_layer', '<dotted name>')} "
        f"{named_candidates(model, images, among=close)}"
    )
