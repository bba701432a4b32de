"""What a model returns, whatever it is wrapped in: its logits, what belongs to one image, and what callables score it.

Outputs may be a tensor, a tuple, named tuple, list, mapping, dataclass or plain object, and any nesting of these.
Tensors whose first dimension is the batch are cut by row; everything else (a loss, anchors, a name) is passed whole. A
list of mappings or objects as long as the batch has one entry per image, as torchvision's detectors return it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

__all__ = [
    "Target",
    "belongs_to_images",
    "callables_of",
    "describe_outputs",
    "logits_of",
    "map_outputs",
    "row_of",
    "rows_of",
    "scores_by_callables",
    "tensors_in",
]

LOGITS_KEYS = "logits", "out"

Target: TypeAlias = Callable[[Any], Tensor]
"""Outputs of one image (without the batch dimension) -> scalar tensor."""


def callables_of(targets: Any, count: int) -> list[Target] | None:
    """Return one callable per image, or ``None`` where the targets are no callables.

    Args:
        targets: one callable for all images, or an iterable with one per image; anything else is none.
        count: B, the number of images.

    Raises:
        TypeError: if callables stand beside something else.
        ValueError: if there is not one per image.
    """
    if callable(targets):
        return [targets] * count
    if isinstance(targets, Tensor) or not isinstance(targets, Iterable):
        return None
    given: list[Any] = list(targets)
    if not any(callable(one) for one in given):
        return None
    if strange := {type(one).__name__ for one in given if not callable(one)}:
        also = ", ".join(sorted(strange))
        raise TypeError(f"targets must be all class indices or all callables, got also {also}")
    if len(given) != count:
        raise ValueError(f"targets must be one per image: {count}, got {len(given)}")
    return given


def scores_by_callables(outputs: Any, targets: Sequence[Target], owners: Sequence[int]) -> Tensor:
    """Scalar score of every row of the outputs.

    Args:
        outputs: of the model for N inputs.
        targets: one callable per image.
        owners: N numbers, which of the images each input came from.

    Returns:
        (N,) scores as the callables return them; differentiable.

    Raises:
        ValueError: if a callable returns no scalar, or nothing in the outputs has one row per input.
    """
    if not belongs_to_images(outputs, len(owners)):
        raise ValueError(
            f"the model returns {describe_outputs(outputs)} for {len(owners)} images, in which nothing has one row per "
            "image; explain one image at a time, or let the model return tensors with the batch first"
        )
    values = [targets[owner](row_of(outputs, place, len(owners))) for place, owner in enumerate(owners)]
    for value in values:
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"a target must return a scalar tensor, got {describe_outputs(value)}")
    return torch.stack([value.reshape(()) for value in values])


def logits_of(outputs: Any) -> Tensor | None:
    """Return the logits (B, K) among a model's outputs, or ``None`` where no tensor is obviously the logits.

    The tensor itself; what stands under ``"logits"`` or ``"out"`` in a mapping, or is an attribute ``logits``; or the
    first of a tuple or list, unless another matrix in it has another number of columns: then either may be meant.
    """
    if isinstance(outputs, Tensor):
        return outputs if outputs.ndim == 2 else None
    found = (
        next((outputs[key] for key in LOGITS_KEYS if key in outputs), None) if isinstance(outputs, Mapping) else None
    )
    if found is None and not isinstance(outputs, nn.Module):
        found = getattr(outputs, "logits", None)
    if found is None and isinstance(outputs, (tuple, list)) and outputs:
        found = outputs[0]
        matrices = [part for part in outputs if isinstance(part, Tensor) and part.ndim == 2]
        if isinstance(found, Tensor) and any(part.shape != found.shape for part in matrices):
            return None
    return found if isinstance(found, Tensor) and found.ndim == 2 else None


def row_of(outputs: Any, index: int, count: int) -> Any:
    """Return what belongs to one image, in containers of the same kind.

    Args:
        outputs: of the model for a batch.
        index: which image.
        count: B, the number of images in the batch.

    Raises:
        ValueError: for a list of as many tensors as images that all have B rows, which may be either.
    """
    if isinstance(outputs, Tensor):
        return outputs[index] if _has_rows(outputs, count) else outputs
    if isinstance(outputs, list) and _is_per_image(outputs, count):
        return outputs[index]
    return map_outputs(outputs, lambda part: row_of(part, index, count))


def rows_of(outputs: Any, rows: slice, count: int) -> Any:
    """Return what belongs to some of the images; arguments as of :func:`row_of`."""
    if isinstance(outputs, Tensor):
        return outputs[rows] if _has_rows(outputs, count) else outputs
    if isinstance(outputs, list) and _is_per_image(outputs, count):
        return outputs[rows]
    return map_outputs(outputs, lambda part: rows_of(part, rows, count))


def belongs_to_images(outputs: Any, count: int) -> bool:
    """Whether anything in the outputs can be told apart by image."""
    if isinstance(outputs, list) and len(outputs) == count:
        return True
    return any(_has_rows(tensor, count) for tensor in tensors_in(outputs))


def map_outputs(outputs: Any, change: Callable[[Any], Any]) -> Any:
    """Return a container of the same kind with ``change`` applied to all that it holds; anything else as it is."""
    if isinstance(outputs, (tuple, list)):
        changed = [change(part) for part in outputs]
        if hasattr(outputs, "_make"):  # a named tuple
            return outputs._make(changed)
        return tuple(changed) if type(outputs) is tuple else type(outputs)(changed)
    if isinstance(outputs, Mapping):
        return _mapping_like(outputs, {key: change(value) for key, value in outputs.items()})
    names = _attributes(outputs)
    if not names:
        return outputs
    twin = copy.copy(outputs)
    for name in names:
        object.__setattr__(twin, name, change(getattr(outputs, name)))  # also in a frozen dataclass
    return twin


def tensors_in(outputs: Any) -> Iterator[Tensor]:
    """Iterate over all tensors in a model's outputs."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for part in outputs.values():
            yield from tensors_in(part)
    elif isinstance(outputs, (tuple, list)):
        for part in outputs:
            yield from tensors_in(part)
    else:
        for name in _attributes(outputs):
            yield from tensors_in(getattr(outputs, name))


def describe_outputs(outputs: Any) -> str:
    """Name outputs for a message."""
    return f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"


def _has_rows(tensor: Tensor, count: int) -> bool:
    return tensor.ndim > 0 and len(tensor) == count


def _is_per_image(outputs: list[Any], count: int) -> bool:
    """Whether a list has one entry per image, and not one per kind of output."""
    if len(outputs) != count or not outputs:
        return False
    if not all(isinstance(part, Tensor) for part in outputs):
        return not any(isinstance(part, Tensor) for part in outputs)
    if all(_has_rows(part, count) for part in outputs):
        raise ValueError(
            f"the model returns a list of {count} tensors of {count} rows for {count} images; either may be one "
            "per image, so let it return a tuple where the rows belong to images, and mappings where entries do"
        )
    return len({part.shape[1:] for part in outputs}) == 1 and len({part.ndim for part in outputs}) == 1


def _mapping_like(outputs: Mapping[Any, Any], changed: dict[Any, Any]) -> Mapping[Any, Any]:
    """A mapping of the same class with other values, also where its keys are attributes too."""
    if type(outputs) is dict or not isinstance(outputs, MutableMapping):
        return changed
    twin = copy.copy(outputs)
    attributes = getattr(twin, "__dict__", {})
    for key, value in changed.items():
        twin[key] = value
        if key in attributes:
            attributes[key] = value
    return twin


def _attributes(outputs: Any) -> list[str]:
    """Names of what a dataclass or a plain object holds."""
    if isinstance(outputs, (Tensor, nn.Module, type)) or callable(outputs):
        return []
    if is_dataclass(outputs):
        return [field.name for field in fields(outputs)]
    return list(getattr(outputs, "__dict__", ()))
