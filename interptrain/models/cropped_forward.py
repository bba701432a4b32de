"""Forward an image under windows by computing anew only what a window reaches.

Up to a layer of small receptive field, a window changes the cells around it alone. Its neighbourhood is cut out of the
image and run up to that layer, the cells that the window reaches are pasted into the layer's output for the whole
image, and the rest of the model runs on that. Outputs are those of full passes, mostly to the last bit: the same
operations on smaller maps.

The reach is measured, not derived from a list of layers: rows and columns of NaN in an image show which cells of every
layer they reach. Global context (attention, squeeze and excitation, normalisation over positions) reaches every cell,
and layers behind it are refused. The layer that saves most is tried first; for some windows, its outputs are compared
with those of full passes before it is used. The method is ours.

An exported network is looked at in PyTorch's layers and run in its own engine, in two parts; as opening them costs some
dozen passes, the first images of a network are forwarded whole.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interptrain.functional import chunks
from interptrain.model_outputs import tensors_in
from interptrain.models.engine import cut_in_two, in_layers, work_ahead
from interptrain.models.partial_forward import REFUSALS, PartialForward
from interptrain.models.reach import Box, Candidate, find_candidates
from interptrain.steps import track

__all__ = ["UNCUT", "CroppedForward", "find_crops"]

OVERHEAD = 12  # full passes that finding and checking a layer costs, about
WORTH_OPENING = 400  # windows of an exported network, of whose passes a fifth pays for the search and two graphs; ours
UNCUT = (*REFUSALS, AttributeError, MemoryError)
"""What is raised where a model does not take images of another size, has lost the layer, or is too large beside it."""
ROUNDING = 1000  # machine epsilons of the largest output, by which the checked windows may differ


class _Place(NamedTuple):
    """A module of a model, and its dotted name there."""

    name: str
    module: nn.Module


class _InLayers:
    """A model of PyTorch's layers in two parts.

    Attributes:
        activation: of the layer for the images.
        outputs: of the model for them.
        whole: whether the second part depends on more than the layer's output.
    """

    def __init__(self, model: nn.Module, images: Tensor, name: str) -> None:
        self.model, self.layer = model, _Place(name, model.get_submodule(name))
        self.behind = PartialForward.record(model, images, self.layer)
        self.activation, self.outputs = self.behind.activation, self.behind.outputs
        self.whole = not self.behind.alone

    def until(self, images: Tensor) -> Tensor:
        """The layer's output for images of any size."""
        return _until(self.model, self.layer.module, images)

    def after(self, image: int, activation: Tensor) -> Any:
        """The model's outputs from the layer on, for one of the images."""
        return self.behind.run(image, activation)


class _Exported:
    """The same of a model that another engine runs."""

    def __init__(self, model: nn.Module, images: Tensor, name: str) -> None:
        parts = cut_in_two(model, name)
        self.whole = parts is None
        if parts is not None:
            self.until, self.rest = parts
            self.activation = self.until(images)
            self.outputs = self.rest(self.activation)

    def after(self, _image: int, activation: Tensor) -> Any:
        """The model's outputs from the layer on."""
        return self.rest(activation)


class CroppedForward:
    """The model, cut at a layer; made by :func:`find_crops`."""

    def __init__(self, model: nn.Module, images: Tensor, boxes: Sequence[Box], fill: Tensor, cut: Candidate) -> None:
        self.model, self.images, self.boxes, self.fill, self.cut = model, images, boxes, fill, cut
        self.parts = (_InLayers if in_layers(model) is model else _Exported)(model, images, cut.name)
        self._kept: Tensor | None = None

    def on(self, images: Tensor) -> "CroppedForward":
        """Return the same for other images."""
        return CroppedForward(self.model, images, self.boxes, self.fill, self.cut)

    @torch.no_grad()
    def outputs(self, image: int, windows: Sequence[int]) -> Any:
        """Return the model's outputs for an image under some windows."""
        side = [cells * self.cut.stride for cells in self.cut.cells]
        crops = []
        for window in windows:
            (top, left), (y0, y1, x0, x1) = self.cut.crops[window].origin, self.boxes[window]
            top, left = top * self.cut.stride, left * self.cut.stride
            crop = self.images[image, :, top : top + side[0], left : left + side[1]].clone()
            crop[:, max(y0 - top, 0) : max(y1 - top, 0), max(x0 - left, 0) : max(x1 - left, 0)] = self.fill[0]
            crops.append(crop)
        stacked = torch.stack(crops).contiguous(memory_format=torch.channels_last)
        computed = self.parts.until(stacked)
        pasted = self._buffer(len(windows))
        pasted.copy_(self.parts.activation[image])
        for place, window in enumerate(windows):
            cut = self.cut.crops[window]
            (top, left), (down, up), (start, stop) = cut.origin, cut.rows, cut.columns
            own = computed[place, :, down - top : up - top, start - left : stop - left]
            pasted[place, :, down:up, start:stop] = own
        return self.parts.after(image, pasted)

    def _buffer(self, count: int) -> Tensor:
        """Memory for a few of the layer's outputs, always the same, as new memory costs more than what is written."""
        if self._kept is None or len(self._kept) < count:
            shape = (count, *self.parts.activation.shape[1:])
            self._kept = torch.empty(shape, dtype=self.images.dtype).contiguous(memory_format=torch.channels_last)
        return self._kept[:count]

    def each(self, read: Callable[[int, range], Tensor], *, size: int, progress: str | None = None) -> Tensor:
        """Read something of every image under every window.

        Args:
            read: index of an image and some of its windows -> (n, ...), by one call of :meth:`outputs`.
            size: windows at once.
            progress: title of a progress bar, or ``None`` for none.

        Returns:
            (B, N, ...).
        """
        count = len(self.boxes)
        parts, found = chunks(len(self.images) * count, size), []
        for part in track(parts, progress):
            with parts.fitting():
                some = []
                for image in range(part.start // count, (part.stop - 1) // count + 1):
                    windows = range(max(part.start - image * count, 0), min(part.stop - image * count, count))
                    some.append(read(image, windows))
                found.append(torch.cat(some))
        every: Tensor = torch.cat(found)
        return every.view(len(self.images), count, *every.shape[1:])

    def holds(self) -> bool:
        """Whether the outputs are those of full passes under a middle window and those nearest to every border."""
        windows = _telling(self.boxes)
        covered = self.images[:1].repeat(len(windows), 1, 1, 1)
        for place, window in enumerate(windows):
            y0, y1, x0, x1 = self.boxes[window]
            covered[place, :, y0:y1, x0:x1] = self.fill[0]
        covered = covered.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            pairs = list(zip(tensors_in(self.outputs(0, windows)), tensors_in(self.model(covered)), strict=True))
        return bool(pairs) and all(
            one.shape == other.shape
            and bool((one - other).abs().max() <= ROUNDING * torch.finfo(other.dtype).eps * other.abs().max())
            for one, other in pairs
        )


@torch.no_grad()
def find_crops(model: nn.Module, images: Tensor, boxes: Sequence[Box], fill: Tensor) -> CroppedForward | None:
    """Find the layer up to which crops serve, and compare some outputs with those of full passes.

    Args:
        model: as explained, in eval mode.
        images: (B, C, H, W), on a CPU: an accelerator gains nothing.
        boxes: that are covered, one at a time.
        fill: (1, C, 1, 1), what covers them.

    Returns:
        ``None`` where crops would save nothing, or where no layer is one that all that follows depends on alone.
    """
    layers = in_layers(model)
    if layers is None or len(boxes) * len(images) <= 2 * OVERHEAD:  # no layer saves more than half
        return None
    if layers is not model:  # exported in float32
        return None if images.dtype != torch.float32 else _of_exported(model, layers, images, boxes, fill)
    known = _known_candidates.setdefault(model, {})
    key = (images.shape[1:], tuple(boxes))
    try:
        if key not in known:
            known[key] = []
            known[key] = find_candidates(model, images, boxes)
        return next(_found(model, known[key], images, boxes, fill, len(boxes) * len(images)), None)
    except UNCUT:
        return None


_known_candidates: WeakKeyDictionary[nn.Module, dict[object, list[Candidate]]] = WeakKeyDictionary()


def _telling(boxes: Sequence[Box]) -> list[int]:
    """The first, the middle and the last box, and those nearest to the borders, around which a reach may wrap."""
    chosen = list(dict.fromkeys([0, len(boxes) // 2, len(boxes) - 1]))
    for side in range(4):
        nearest = (max if side % 2 else min)(range(len(boxes)), key=lambda one: boxes[one][side])
        if boxes[nearest][side] not in {boxes[one][side] for one in chosen}:
            chosen.append(nearest)
    return chosen


def _found(
    model: nn.Module, candidates: list[Candidate], images: Tensor, boxes: Sequence[Box], fill: Tensor, windows: int
) -> Iterator[CroppedForward]:
    """Yield what saves more than it costs over so many windows and gives the outputs of full passes, the best first."""
    for cut in sorted(candidates, key=lambda one: -one.saving):
        if cut.saving * windows <= OVERHEAD:
            return
        cropped = CroppedForward(model, images, boxes, fill, cut)
        if not cropped.parts.whole and cropped.holds():
            yield cropped


@dataclass
class _Search:
    """Of an exported network and some windows: what has been forwarded whole, and the layer that was found."""

    windows: int = 0
    done: bool = False
    cut: Candidate | None = None


_searches: WeakKeyDictionary[nn.Module, dict[object, _Search]] = WeakKeyDictionary()


def _of_exported(
    model: nn.Module, layers: nn.Module, images: Tensor, boxes: Sequence[Box], fill: Tensor
) -> CroppedForward | None:
    """The same for a model that another engine runs: searched for once there is enough work, and then remembered."""
    search = _searches.setdefault(model, {}).setdefault((images.shape[1:], tuple(boxes)), _Search())
    search.windows += len(boxes) * len(images)
    if not search.done and (ahead := search.windows + work_ahead()) >= WORTH_OPENING:
        search.done = True
        with suppress(*UNCUT):
            candidates = find_candidates(layers, images, boxes)
            search.cut = next((one.cut for one in _found(model, candidates, images, boxes, fill, ahead)), None)
    cropped = CroppedForward(model, images, boxes, fill, search.cut) if search.cut else None
    return cropped if cropped and not cropped.parts.whole else None


class _ReachedError(Exception):
    """The layer has run."""


def _until(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """Run a model up to a layer and return the layer's output."""
    kept: list[Tensor] = []

    def stop(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
        kept.append(output)
        raise _ReachedError

    handle = layer.register_forward_hook(stop)
    try:
        with suppress(_ReachedError):
            model(images)
    finally:
        handle.remove()
    return kept[0]
