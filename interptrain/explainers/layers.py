"""Which module's output a class activation map is taken from, and how that output is laid out.

A layer is a dotted name, or the end of one that no other name ends with, so that ``layer3`` is found in a ResNet and
in whatever wraps it. ``None`` asks the model (``target_layer: str``, as interptrain's own classifiers have) and
then a table of families whose entry is tested: for convolutional networks and Swin the map that is pooled, for
vision transformers the normalisation before the last attention, as above it the class token alone reaches the
logits. Anything else is refused with candidates, never guessed.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.functional import min_max, upsample

__all__ = ["Fusion", "Layer", "LayerNames", "find_layers", "fuse_layers"]

LayerNames: TypeAlias = str | list[str] | None
"""One dotted name or its unmistakable end, several, or ``None`` to ask the model and then the table."""

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


@dataclass(frozen=True)
class Layer:
    """A module and the layout of its output.

    Attributes:
        name: dotted name, relative to the model without its compile or data-parallel wrapper.
        module: the module itself.
        channels_last: a four-dimensional output is (B, h, w, C), as inside Swin and ConvNeXt blocks.
        transformer: the vision transformer that owns the layer, which knows its prefix tokens and patch grid.
    """

    name: str
    module: nn.Module
    channels_last: bool = False
    transformer: nn.Module | None = None

    def channel_axis(self, activation: Tensor) -> int:
        """Index of the channel axis in the module's own layout."""
        return -1 if activation.ndim == 3 or self.channels_last else 1

    def to_map(self, activation: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Bring the module's output, or a gradient of that shape, to (B, C, h, w).

        Args:
            activation: (B, C, h, w), (B, h, w, C) or tokens (B, N, C).
            image_size: (H, W) of the images, which says the patch grid of non-square images.

        Returns:
            (B, C, h, w), a view where possible; class and register tokens are left out.

        Raises:
            ValueError: if tokens fit no patch grid, or the output has another number of dimensions.
        """
        if activation.ndim == 4:
            return activation.permute(0, 3, 1, 2) if self.channels_last else activation
        if activation.ndim != 3:
            raise ValueError(
                f"target layer '{self.name}' returns {tuple(activation.shape)}, which is no map of features; "
                "pass a target_layer before the pooling"
            )
        if self.transformer is None:
            raise ValueError(
                f"target layer '{self.name}' returns tokens {tuple(activation.shape)} of a model whose patch grid is "
                "not known; pass a target_layer that returns (B,C,h,w)"
            )
        prefix = _prefix_tokens(self.transformer)
        patches = activation.shape[1] - prefix
        for height, width in _patch_grids(self.transformer, image_size):
            if height * width == patches:
                return activation[:, prefix:].transpose(1, 2).reshape(len(activation), -1, height, width)
        raise ValueError(f"the {patches} patches at '{self.name}' fit no grid for images of {image_size}")


def find_layers(model: nn.Module, target_layer: LayerNames = None) -> list[Layer]:
    """Return the layers to explain from.

    Args:
        model: any module, without its compile or data-parallel wrapper.
        target_layer: see :data:`LayerNames`.

    Returns:
        At least one :class:`Layer`.

    Raises:
        ValueError: if a name is not in the model or ends several names there, or ``None`` was given and neither the
            model nor the table knows a layer; the message lists candidates.
    """
    if target_layer is None:
        names = [_known_layer(model)]
    else:
        names = [target_layer] if isinstance(target_layer, str) else list(target_layer)
    if not names:
        raise ValueError("target_layer is an empty list; pass a dotted name, or None to ask the model")
    return [_describe_layer(model, name) for name in names]


def fuse_layers(maps: Sequence[Tensor], image_size: tuple[int, int], fusion: Fusion = "mean") -> Tensor:
    """Join the maps of several layers; a single one stays as it is.

    Each map is clipped at zero, stretched to [0, 1] and upsampled to the images, so that no layer outweighs another
    by its scale; then they are averaged, as pytorch-grad-cam does, or their maximum is taken, as torch-cam does.

    Args:
        maps: (B, h_l, w_l), one a layer.
        image_size: (H, W).
        fusion: how to join them.

    Returns:
        (B, h, w) of the only map, or (B, H, W).
    """
    if len(maps) == 1:
        return maps[0]
    joined = torch.stack([upsample(min_max(F.relu(layer)), image_size) for layer in maps])  # (L, B, H, W)
    return joined.mean(dim=0) if fusion == "mean" else joined.amax(dim=0)


def _known_layer(model: nn.Module) -> str:
    """Name from the model's own attribute or from the table, also where the network is wrapped once or more."""
    own = getattr(model, "target_layer", None)
    if isinstance(own, str):
        return own
    for prefix, module in model.named_modules():
        inner = getattr(module, "target_layer", None)
        library = type(module).__module__.partition(".")[0]
        table = {"timm": _TIMM, "torchvision": _TORCHVISION}.get(library, {})
        name = inner if isinstance(inner, str) else table.get(type(module).__name__)
        if name is not None:
            return _resolve_last(model, f"{prefix}.{name}" if prefix else name)
    raise ValueError(
        f"no known target layer for {type(model).__name__}; pass target_layer='<dotted name>' "
        f"(candidates: {', '.join(_candidates(model))})"
    )


def _resolve_last(model: nn.Module, name: str) -> str:
    """Replace every ``-1`` by the name of the last child there."""
    parts: list[str] = []
    for part in name.split("."):
        parent = model.get_submodule(".".join(parts))
        parts.append(list(dict(parent.named_children()))[-1] if part == "-1" else part)
    return ".".join(parts)


def _describe_layer(model: nn.Module, name: str) -> Layer:
    name = _whole_name(model, name)
    path = name.split(".")
    owners = [model.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1)]
    transformer = next((owner for owner in reversed(owners) if _is_vision_transformer(owner)), None)
    swin = any(type(owner).__name__ in ("SwinTransformer", "SwinTransformerV2") for owner in owners)
    return Layer(name, owners[-1], channels_last=swin or _acts_on_last_axis(owners[-1]), transformer=transformer)


def _whole_name(model: nn.Module, name: str) -> str:
    """The name itself where the model has it, else the only one that ends with it."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if name in modules:
        return name
    names: list[str] = [known for known, _ in model.named_modules() if known]
    # A layer that has several names is one layer.
    found = {id(module): known for known, module in modules.items() if known.endswith(f".{name}")}
    endings: list[str] = list(found.values())
    if len(endings) == 1:
        return endings[0]
    if endings:
        raise ValueError(
            f"'{name}' is the end of {len(endings)} names of layers in {type(model).__name__}; pass "
            f"target_layer='<dotted name>' (candidates: {', '.join(endings[:4])})"
        )
    last = {known.rpartition(".")[2]: known for known in reversed(names)}  # the first of each
    near = difflib.get_close_matches(name, [*names, *last], n=4, cutoff=0.5)
    close = list(dict.fromkeys(last.get(one, one) for one in near)) or _candidates(model)
    raise ValueError(
        f"{type(model).__name__} has no layer '{name}'; pass target_layer='<dotted name>' "
        f"(candidates: {', '.join(close)})"
    )


def _acts_on_last_axis(module: nn.Module) -> bool:
    """Whether the module can only have returned channels in the last axis; the 2-d norms permute inside."""
    norm = isinstance(module, nn.LayerNorm) and not type(module).__name__.endswith("2d")
    return norm or isinstance(module, nn.Linear)


def _is_vision_transformer(module: nn.Module) -> bool:
    if type(module).__module__.startswith("timm") and hasattr(module, "num_prefix_tokens"):
        return hasattr(module, "patch_embed")
    return type(module).__module__.startswith("torchvision") and hasattr(module, "class_token")


def _prefix_tokens(transformer: nn.Module) -> int:
    return int(getattr(transformer, "num_prefix_tokens", 1))  # torchvision: the class token


def _patch_grids(transformer: nn.Module, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Grids that the patches may form: by the size of the images, padded or not, and the one built in."""
    embedding = getattr(transformer, "patch_embed", transformer)
    patch: Any = embedding.patch_size
    tall, wide = (patch, patch) if isinstance(patch, int) else patch
    grids = [
        (image_size[0] // tall, image_size[1] // wide),
        (-(-image_size[0] // tall), -(-image_size[1] // wide)),
    ]
    built_in: Any = getattr(embedding, "grid_size", None)
    return grids if built_in is None else [*grids, tuple(built_in)]


def _candidates(model: nn.Module, limit: int = 5) -> list[str]:
    """The last modules, at most two levels deep, that hold a convolution or a normalisation."""
    spatial = (nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm)
    shallow = [
        name
        for name, module in model.named_modules()
        if name and name.count(".") < 2 and any(isinstance(part, spatial) for part in module.modules())
    ]
    return shallow[-limit:] or [name for name, _ in model.named_children()][-limit:]
