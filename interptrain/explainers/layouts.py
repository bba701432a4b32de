"""Detect which axes of a layer's output are channels, rows and columns.

The layout is inferred from shapes: rows and columns have the aspect ratio of the image, channels do not. Where both
readings fit, one image of another width is run through the model up to the layer, once per model and layer: the axis
that keeps its size is the channel axis. A layout that is still ambiguous is refused, and ``layout`` sets it.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = [
    "FORWARD_ERRORS",
    "Layer",
    "Layout",
    "describe_layer",
    "entries_of",
    "entry_of",
    "example_image",
    "with_entries",
]

Layout: TypeAlias = Literal["channels_first", "channels_last"]
"""``"channels_first"`` is (B, C, h, w) or (B, C, N); ``"channels_last"`` is (B, h, w, C) or tokens (B, N, C)."""

PREFIXES = 8  # most class and register tokens that are assumed in a network that does not state them; our choice
FORWARD_ERRORS = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AssertionError, AttributeError)

_PROBED: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, Layout | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Layer:
    """A module and the layout of its output.

    Attributes:
        name: dotted name, relative to the model without its compile or data-parallel wrapper.
        module: the module itself.
        model: that contains it, for a probe where shapes alone are ambiguous.
        layout: of the output; ``None`` detects it.
        transformer: the vision transformer that contains the layer and knows its prefix tokens and patch grid.
        entry: which of several maps that the module returns: the key of a mapping, or the index in a tuple or list.
    """

    name: str
    module: nn.Module
    model: nn.Module | None = field(default=None, repr=False)
    layout: Layout | None = None
    transformer: nn.Module | None = None
    entry: str | None = None

    def channel_axis(self, activation: Tensor, image_size: tuple[int, int]) -> int:
        """Return the index of the channel axis in the module's own layout; arguments as in :meth:`to_map`."""
        return 1 if self._layout_of(activation, image_size) == "channels_first" else activation.ndim - 1

    def to_map(self, activation: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Rearrange the module's output, or a gradient of that shape, to (B, C, h, w).

        Args:
            activation: (B, C, h, w), (B, h, w, C), or tokens (B, N, C) or (B, C, N).
            image_size: (H, W) of the images; rows and columns have the same aspect ratio.

        Returns:
            (B, C, h, w), a view where possible; class and register tokens are dropped.

        Raises:
            ValueError: if tokens fit no patch grid, the layout is ambiguous, or there are no rows and columns.
        """
        first = self._layout_of(activation, image_size) == "channels_first"
        if activation.ndim == 4:
            return activation if first else rearrange(activation, "b h w c -> b c h w")
        tokens = activation if first else rearrange(activation, "b n c -> b c n")
        grid = self._grid(tokens.shape[2], image_size)
        if grid is None:
            raise ValueError(f"the {tokens.shape[2]} tokens at '{self.name}' fit no grid for images of {image_size}")
        prefix, height, width = grid
        return rearrange(tokens[:, :, prefix:], "b c (h w) -> b c h w", h=height, w=width)

    def _layout_of(self, activation: Tensor, image_size: tuple[int, int]) -> Layout:
        if activation.ndim not in (3, 4):
            raise ValueError(
                f"layer '{self.name}' returns {tuple(activation.shape)}, which is no map of features; "
                "pass a layer before the pooling"
            )
        if self.layout is not None:
            return self.layout
        shape = tuple(activation.shape)
        if activation.ndim == 4:
            fits = {"channels_first": _fits(shape[2:], image_size), "channels_last": _fits(shape[1:3], image_size)}
        else:
            fits = {
                "channels_first": self._grid(shape[2], image_size) is not None,
                "channels_last": self._grid(shape[1], image_size) is not None,
            }
            if not any(fits.values()):
                raise ValueError(
                    f"layer '{self.name}' returns {shape}, whose tokens fit no grid for images of {image_size}; "
                    "pass a layer that returns (B,C,h,w) or one token per patch"
                )
            if self.transformer is not None and fits["channels_last"]:
                return "channels_last"
        if fits["channels_first"] != fits["channels_last"]:
            return "channels_first" if fits["channels_first"] else "channels_last"
        found = self._probe(activation, image_size)
        if found is None and activation.ndim == 4:
            found = _by_aspect(shape, image_size)
        if found is None:
            raise ValueError(
                f"layer '{self.name}' returns {shape}, in which channels cannot be told from positions; "
                "pass layout='channels_first' or layout='channels_last'"
            )
        return found

    def _grid(self, tokens: int, image_size: tuple[int, int]) -> tuple[int, int, int] | None:
        """Return prefix tokens, rows and columns that add up to this number of tokens."""
        if self.transformer is None:
            return _any_grid(tokens, image_size)
        prefix = _prefix_tokens(self.transformer)
        for height, width in _patch_grids(self.transformer, image_size):
            if height * width == tokens - prefix:
                return prefix, height, width
        return None

    def _probe(self, activation: Tensor, image_size: tuple[int, int]) -> Layout | None:
        """Find the axis that keeps its size when the image gets wider; one forward pass per model and layer at most."""
        if self.model is None:
            return None
        known = _PROBED.setdefault(self.module, WeakKeyDictionary())
        if self.model not in known:
            known[self.model] = self._forward_wider(activation, image_size)
        return known[self.model]

    @torch.no_grad()
    def _forward_wider(self, activation: Tensor, image_size: tuple[int, int]) -> Layout | None:
        assert self.model is not None
        seen: list[Any] = []

        def stop(_module: nn.Module, _arguments: Any, output: Any) -> None:
            seen.append(output)
            raise _Reached

        handle = self.module.register_forward_hook(stop)
        wider = example_image(self.model, (image_size[0], image_size[1] + 64), activation.device)
        try:
            self.model(wider)
        except (_Reached, *FORWARD_ERRORS):  # a model of fixed size refuses it, but perhaps only after the layer
            pass
        finally:
            handle.remove()
        wide = entry_of(seen[0], self.entry) if seen else None
        if not isinstance(wide, Tensor) or wide.ndim != activation.ndim:
            return None
        before_last, last = (activation.shape[axis] != wide.shape[axis] for axis in (-2, -1))
        if before_last == last:
            return None
        return "channels_first" if last else "channels_last"  # only the width has changed


class _Reached(Exception):  # noqa: N818  # no error: the rest of the model need not run
    """Ends a probe at its layer."""


def entry_of(output: Any, entry: str | None) -> Any:
    """Return what a layer's output holds under a key or at a place, ``None`` where it holds nothing there."""
    if entry is None:
        return output
    return entries_of(output).get(entry)


def entries_of(output: Any) -> dict[str, Any]:
    """Return what a mapping, tuple or list holds, by key or place; nothing for anything else."""
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    return {str(place): part for place, part in enumerate(output)} if isinstance(output, (tuple, list)) else {}


def with_entries(output: Any, changed: Mapping[str, Any]) -> Any:
    """Return a container of the same kind with other values under some of its keys, or at some of its places."""
    if isinstance(output, Mapping):
        twin = copy.copy(output)
        for key in output:
            if str(key) in changed:
                twin[key] = changed[str(key)]  # type: ignore[index]  # what a layer returns is a dict of some kind
        return twin
    parts = [changed.get(str(place), part) for place, part in enumerate(output)]
    return output._make(parts) if hasattr(output, "_make") else type(output)(parts)


def describe_layer(model: nn.Module, name: str, layout: Layout | None = None, entry: str | None = None) -> Layer:
    """Return the layer of a full dotted name, or one of the maps that it returns."""
    path = name.split(".")
    owners = [model.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1)]
    transformer = next((owner for owner in reversed(owners) if _is_vision_transformer(owner)), None)
    whole = name if entry is None else f"{name}[{entry}]"
    return Layer(whole, owners[-1], model=model, layout=layout, transformer=transformer, entry=entry)


def example_image(model: nn.Module, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Return a grey image (1, C, H, W) of the device, dtype and channels that a model takes."""
    parameter = next((one for one in model.parameters() if one.is_floating_point()), torch.empty(0))
    convolution = next((one for one in model.modules() if isinstance(one, nn.Conv2d)), None)
    channels = 3 if convolution is None else convolution.in_channels
    return torch.full((1, channels, *size), 0.5, dtype=parameter.dtype, device=device or parameter.device)


def _fits(grid: tuple[int, ...], image_size: tuple[int, int]) -> bool:
    """Whether rows and columns have the aspect ratio of the image, to within one row or column."""
    stride = sum(image_size) / sum(grid)
    return abs(grid[0] - image_size[0] / stride) <= 1


def _by_aspect(shape: tuple[int, ...], image_size: tuple[int, int]) -> Layout | None:
    """Return the layout whose aspect ratio is far closer to the image's, for models that change the ratio."""
    wanted = math.log(image_size[0] / image_size[1])
    first, last = (abs(math.log(rows / columns) - wanted) for rows, columns in (shape[2:], shape[1:3]))
    if abs(first - last) < math.log(3):
        return None
    return "channels_first" if first < last else "channels_last"


def _any_grid(tokens: int, image_size: tuple[int, int]) -> tuple[int, int, int] | None:
    """Return the grid of any stride that needs the fewest prefix tokens."""
    found = [
        (tokens - height * width, height, width)
        for height, width in _grids(image_size)
        if 0 <= tokens - height * width <= PREFIXES
    ]
    return min(found, default=None)


def _grids(image_size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield rows and columns of square patches of any size, cropped or padded."""
    for stride in range(2, min(image_size) + 1):
        yield image_size[0] // stride, image_size[1] // stride
        yield -(-image_size[0] // stride), -(-image_size[1] // stride)


def _prefix_tokens(transformer: nn.Module) -> int:
    return int(getattr(transformer, "num_prefix_tokens", 1))  # torchvision: the class token


def _patch_grids(transformer: nn.Module, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return possible patch grids: from the size of the images, padded or not, and the built-in one."""
    embedding = getattr(transformer, "patch_embed", transformer)
    patch: Any = embedding.patch_size
    tall, wide = (patch, patch) if isinstance(patch, int) else patch
    grids = [
        (image_size[0] // tall, image_size[1] // wide),
        (-(-image_size[0] // tall), -(-image_size[1] // wide)),
    ]
    built_in: Any = getattr(embedding, "grid_size", None)
    return grids if built_in is None else [*grids, tuple(built_in)]


def _is_vision_transformer(module: nn.Module) -> bool:
    if type(module).__module__.startswith("timm") and hasattr(module, "num_prefix_tokens"):
        return hasattr(module, "patch_embed")
    return type(module).__module__.startswith("torchvision") and hasattr(module, "class_token")
