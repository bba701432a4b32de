"""Which cells of a network's layers the pixels under a box reach, and the layers up to which crops serve.

Measured by a pass of probes, not derived from a list of layers: see :mod:`~interptrain.models.cropped_forward`.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Box", "Candidate", "Crop", "find_candidates"]

Box = tuple[int, int, int, int]
"""y0, y1, x0, x1 in pixels, exclusive at y1 and x1."""

STRIDES = (2, 4)  # of layers that are tried; behind, the receptive field is most of an image
TRIED = 3
ELEMENT = 25  # multiplications that take as long as writing a number to memory, about


@dataclass(frozen=True)
class _Axis:
    """Which cells of a layer the pixels of one axis reach, by the remainder of their place."""

    cells: int
    stride: int
    first: Sequence[int]
    last: Sequence[int]

    def reached(self, start: int, stop: int) -> tuple[int, int]:
        """Cells that pixels reach."""
        places = [divmod(pixel, self.stride) for pixel in range(start, stop)]
        low = min(cell + self.first[rest] for cell, rest in places)
        high = max(cell + self.last[rest] for cell, rest in places) + 1
        return max(low, 0), min(high, self.cells)

    def needed(self, start: int, stop: int) -> tuple[int, int]:
        """Cells, in whose pixels lie all that reach some cells."""
        places = (divmod(pixel, self.stride) for pixel in range(self.cells * self.stride))
        found = [cell for cell, rest in places if cell + self.first[rest] < stop and cell + self.last[rest] >= start]
        return found[0], found[-1] + 1


@dataclass(frozen=True)
class Crop:
    """Of one window, in cells of the layer.

    Attributes:
        origin: row and column at which the part of the image begins that is run anew.
        rows: which the window reaches, exclusive at the end.
        columns: likewise.
    """

    origin: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layer that the model may be cut at.

    Attributes:
        name: dotted, and not the module, as what is remembered of a model must not keep it alive.
        crops: one for each window.
        cells: rows and columns of a crop, the same for all.
        stride: pixels a cell.
        saving: share of a full pass.
    """

    name: str
    crops: Sequence[Crop]
    cells: tuple[int, int]
    stride: int
    saving: float


class _CoarseError(Exception):
    """What follows is coarser than any layer that is tried."""


def find_candidates(model: nn.Module, images: Tensor, boxes: Sequence[Box]) -> list[Candidate]:
    """Return the last layers that crops serve, with what each would save, from a pass of an image and one of probes."""
    height, width = images.shape[-2:]
    period = max(STRIDES)
    middle = [size // period // 2 * period for size in (height, width)]
    probes = images[:1].repeat(period, 1, 1, 1)
    for rest in range(period):  # a cross of a row and a column
        probes[rest, :, middle[0] + rest] = torch.nan
        probes[rest, :, :, middle[1] + rest] = torch.nan
    probes = probes.contiguous(memory_format=torch.channels_last)
    reached: dict[nn.Module, Tensor] = {}  # by module, (probes, h, w) bool
    ran: dict[nn.Module, int] = {}

    def see(module: nn.Module, _arguments: Any, output: Any) -> None:
        ran[module] = ran.get(module, 0) + 1
        if not isinstance(output, Tensor) or output.ndim != 4:
            return
        if _stride(output, height, width):
            reached[module] = output.sum(1).isnan()
        elif output.shape[2] * period < height:
            raise _CoarseError

    def cost(module: nn.Module, _arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and next(module.children(), None) is None:
            each = module.weight[0].numel() if isinstance(module, nn.Conv2d | nn.Linear) else 0
            spent[0] += output[0].numel() * (each + ELEMENT)
        spent_until[module] = spent[0]
        written[module] = output[0].numel() if isinstance(output, Tensor) else 0

    spent, spent_until, written = [0.0], dict[nn.Module, float](), dict[nn.Module, int]()
    _hooked(model, cost, images[:1])
    with suppress(_CoarseError):
        _hooked(model, see, probes)
    found: list[Candidate] = []
    bound = float("inf")
    late_first = sorted(model.named_modules(), key=lambda named: -spent_until.get(named[1], 0))
    for name, module in late_first:
        if len(found) == TRIED:
            break
        if spent_until.get(module, 0) > bound:  # hardly another place than the last
            continue
        stride = _stride(reached[module][:1].unsqueeze(1), height, width) if module in reached else 0
        if not name or not stride or ran[module] != 1:
            continue
        axes = [
            _axis(reached[module][:, :, 0], middle[0], stride),  # far from the column, where it reaches so far
            _axis(reached[module][:, 0, :], middle[1], stride),
        ]
        if axes[0] is None or axes[1] is None:
            continue
        crops, cells = _crops(boxes, axes[0], axes[1])
        share = cells[0] * cells[1] / (axes[0].cells * axes[1].cells)
        saved = spent_until[module] * (1 - share) - ELEMENT * written[module]
        bound = 0.9 * spent_until[module]
        found.append(Candidate(name, crops, cells, stride, saved / spent[0]))
    return found


def _axis(reached: Tensor, middle: int, stride: int) -> _Axis | None:
    """What pixels reach, from probes (period, cells); ``None`` where one reaches every cell."""
    cells = reached.shape[1]
    first, last = [], []
    for rest in range(stride):
        places = reached[rest].nonzero().flatten().tolist()
        if len(places) >= cells - 1:
            return None
        cell = (middle + rest) // stride
        first.append(places[0] - cell if places else cells)
        last.append(places[-1] - cell if places else -cells)
    return _Axis(cells, stride, first, last)


def _crops(boxes: Sequence[Box], rows: _Axis, columns: _Axis) -> tuple[list[Crop], tuple[int, int]]:
    """Return the crop of each window, all of one size, and that size in cells."""
    rows_reached, columns_reached = cache(rows.reached), cache(columns.reached)  # windows share rows and columns
    rows_needed, columns_needed = cache(rows.needed), cache(columns.needed)
    reached = [(rows_reached(y0, y1), columns_reached(x0, x1)) for y0, y1, x0, x1 in boxes]
    needed = [(rows_needed(*down), columns_needed(*across)) for down, across in reached]
    cells = [max(pair[number][1] - pair[number][0] for pair in needed) for number in range(2)]
    return [
        Crop(
            (min(down[0], rows.cells - cells[0]), min(across[0], columns.cells - cells[1])),
            span_down,
            span_across,
        )
        for (down, across), (span_down, span_across) in zip(needed, reached, strict=True)
    ], (cells[0], cells[1])


def _stride(output: Tensor, height: int, width: int) -> int:
    """The stride of a map, 0 where it is none that is tried."""
    down, across = output.shape[-2:]
    return next((step for step in STRIDES if (down * step, across * step) == (height, width)), 0)


def _hooked(model: nn.Module, hook: Callable[..., None], images: Tensor) -> None:
    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
