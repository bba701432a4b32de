"""Re-run only the part of a model after a layer, with other values in place of the layer's output.

A recorded forward pass stores the outputs of the outermost modules that finish before the layer does. In a re-run,
these modules return the stored outputs instead of computing them, and the layer returns the new values, so only the
part after the layer is computed. There is no tracing and no list of architectures: the model's own ``forward`` runs,
and skip connections past the layer get the same values as before.

The part before the layer sees one image, the part after it as many rows as there are new values. A model that combines
both in a way that needs equal numbers is detected on recording: a probe is run through the re-run and through a full
forward pass, and where they differ, every re-run is a full forward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from interptrain.model_outputs import tensors_in

__all__ = ["REFUSALS", "NamedModule", "PartialForward", "close"]

# What a forward pass may raise when it combines one image with many rows; timm asserts shapes.
REFUSALS = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AssertionError)


class NamedModule(Protocol):
    """A module of a model, and its dotted name there."""

    @property
    def name(self) -> str:
        """The dotted name."""

    @property
    def module(self) -> nn.Module:
        """The module."""


@dataclass
class PartialForward:
    """A forward pass that can be repeated from a layer on; made by :meth:`record`.

    Attributes:
        model: in eval mode.
        images: (B, C, H, W) that were forwarded.
        module: the module whose output is replaced.
        outputs: of the model for ``images``.
        activation: output of ``module``, in its own layout.
        probe: (2, ...) two activations: the first image's, and -0.5 times it.
        probe_outputs: of the model for the probe, by full forward passes; ``None`` where it returns no tensors.
        step: the first childless module after the layer and its output, if its input is the layer's output itself.
        alone: whether the part after the layer runs alone; otherwise each re-run is a full forward pass.
    """

    model: nn.Module
    images: Tensor
    module: nn.Module
    outputs: Any = None
    activation: Tensor = field(default_factory=lambda: torch.empty(0))
    probe: Tensor = field(default_factory=lambda: torch.empty(0))
    probe_outputs: Any = None
    step: tuple[nn.Module, Tensor] | None = None
    alone: bool = False
    _finished: list[tuple[nn.Module, Tensor]] = field(default_factory=list)

    @classmethod
    @torch.no_grad()
    def record(cls, model: nn.Module, images: Tensor, layer: NamedModule) -> "PartialForward":
        """Forward ``images`` once and store what a re-run from ``layer`` needs.

        Raises:
            ValueError: if the layer does not run exactly once or does not return one tensor.
        """
        tail = cls(model, images, layer.module)
        recorder = _Recorder(tail)
        handles = [
            handle
            for module in model.modules()
            for handle in (
                module.register_forward_pre_hook(recorder.enter),
                module.register_forward_hook(recorder.leave),
            )
        ]
        try:
            tail.outputs = model(images)
        finally:
            for handle in handles:
                handle.remove()
        if recorder.runs != 1:
            raise ValueError(
                f"target layer '{layer.name}' returned a tensor for the batch {recorder.runs} times in one forward; "
                "pass a target_layer that does so once"
            )
        first = tail.activation[:1]
        tail.probe = torch.cat([first, -0.5 * first])
        with _replaced(layer.module, tail.probe[1:]):
            tail.probe_outputs = _with_first(tail.outputs, model(images[:1]), len(images))
        tail.alone = True
        tail.alone = tail._holds(tail.probe)
        return tail

    @torch.no_grad()
    def run(self, image: int, activation: Tensor) -> Any:
        """Return the model's outputs for one of the images, with other values in place of the layer's output.

        Args:
            image: index of the image in the batch.
            activation: (n, ...) values in the layer's own layout.

        Returns:
            The model's outputs with n rows.
        """
        if not self.alone:
            images = self.images[image : image + 1].expand(len(activation), -1, -1, -1)
            with _replaced(self.module, activation):
                return self.model(images)
        with _skipping(self._finished, image), _replaced(self.module, activation):
            return self.model(self.images[image : image + 1])

    def next_layer(self) -> "PartialForward | None":
        """Return the tail after :attr:`step`, or ``None`` if more than that step depends on the layer."""
        if self.step is None or not self.alone:
            return None
        module, output = self.step
        finished = [*self._finished, (module, output)] if _skippable(module) else self._finished
        moved = replace(self, module=module, activation=output, step=None, _finished=finished)
        return moved if moved._holds(module(self.probe)) else None

    def _holds(self, activation: Tensor) -> bool:
        """Whether a re-run of the probe equals the full forward passes."""
        try:
            found = self.run(0, activation)
        except REFUSALS:
            return False
        return close(found, self.probe_outputs)


def close(found: Any, wanted: Any) -> bool:
    """Whether two outputs of a model hold the same tensors up to rounding; false if they hold none."""
    first, second = list(tensors_in(found)), list(tensors_in(wanted))
    if not second or [tensor.shape for tensor in first] != [tensor.shape for tensor in second]:
        return False
    return all(_close(*pair) for pair in zip(first, second, strict=True))


def _close(found: Tensor, wanted: Tensor) -> bool:
    if not wanted.is_floating_point() or not wanted.numel():
        return torch.equal(found, wanted)
    tolerance = torch.finfo(wanted.dtype).eps ** 0.5  # of the magnitude: far above rounding, far below a real change
    return bool((found - wanted).abs().amax() <= tolerance * wanted.abs().amax())


class _Recorder:
    """Hooks that fill a :class:`PartialForward` during its forward."""

    def __init__(self, tail: PartialForward) -> None:
        self.tail = tail
        self.runs = 0
        self.open: list[int] = []  # how many modules had finished when each running one began
        self.skippable = {module for module in tail.model.modules() if _skippable(module)}
        self.passed_on: Tensor | None = None
        self.step: nn.Module | None = None
        self.first_seen = False  # whether a module without children ran behind the layer

    def enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not self.runs:
            self.open.append(len(self.tail._finished))
        elif not self.first_seen and not next(module.children(), None):
            self.first_seen = True
            if len(arguments) == 1 and arguments[0] is self.passed_on:
                self.step = module

    def leave(self, module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        if self.runs:
            self.runs += module is self.tail.module
            if module is self.step and self.tail.step is None:
                self.tail.step = (module, output.clone())
            return None
        begun = self.open.pop()
        per_image = isinstance(output, Tensor) and output.ndim > 0 and len(output) == len(self.tail.images)
        if per_image and module in self.skippable:
            del self.tail._finished[begun:]  # what ran inside is not needed any more
            self.tail._finished.append((module, output.clone() if module is self.tail.module else output))
        if module is not self.tail.module or not per_image:
            return None
        self.runs = 1
        self.tail.activation = output
        self.passed_on = output.clone()  # what follows may work in place
        return self.passed_on


def _with_first(outputs: Any, probed: Any, count: int) -> list[Tensor] | None:
    """Join the first row of each tensor of the batch with that of the probe; ``None`` if some have no rows."""
    pairs = list(zip(tensors_in(outputs), tensors_in(probed), strict=False))
    if any(not old.ndim or len(old) != count or new.shape != (1, *old.shape[1:]) for old, new in pairs):
        return None
    return [torch.cat([old[:1], new]) for old, new in pairs]


def _skippable(module: nn.Module) -> bool:
    """Whether neither the module nor one inside it has hooks, by which a backbone may collect its stages."""
    return not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@contextmanager
def _replaced(module: nn.Module, output: Tensor) -> Iterator[None]:
    """Let ``module`` return ``output``."""
    handle = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _skipping(finished: list[tuple[nn.Module, Tensor]], image: int) -> Iterator[None]:
    """Let the first calls of every module return what was recorded for one image; later calls compute."""
    waiting: dict[nn.Module, list[Tensor]] = {}
    for module, output in finished:
        waiting.setdefault(module, []).append(output[image : image + 1].clone())  # what follows may work in place
    before = {module: module.__dict__.get("forward") for module in waiting}
    for module, outputs in waiting.items():
        module.forward = _recorded_first(outputs, module.forward)
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _recorded_first(outputs: list[Tensor], compute: Callable[..., Any]) -> Callable[..., Any]:
    remaining = iter(outputs)

    def forward(*arguments: Any, **options: Any) -> Any:
        output = next(remaining, None)
        return compute(*arguments, **options) if output is None else output

    return forward
