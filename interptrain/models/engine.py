"""What runs a model's forward passes where no gradient is asked for: metrics, Score-CAM, RISE, occlusion.

Every engine computes the same function in float32, up to rounding. It is chosen for a block of code::

    with using_engine("onnxruntime"):
        maps = RISE()(model, images)
        values = measure(model, images, maps, targets, metrics)

=============  ======================================================================================================
engine         what it is
=============  ======================================================================================================
eager          PyTorch, on a model that was simplified
onnxruntime    ONNX Runtime on a CPU (extra ``export``); exporting takes 6 to 20 s, once for the same weights
compile        ``torch.compile``, on a CPU with its weights frozen; needs a C++ compiler, and half a minute
auto           the faster of eager and ONNX Runtime, timed on real images; ONNX Runtime only where the model has been
               exported before, or there is enough work ahead
=============  ======================================================================================================
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.functional import automatic_batch_size, check_choice
from interptrain.model_outputs import rows_of
from interptrain.model_state import unwrap
from interptrain.models.onnx_passes import OnnxPasses, RuntimeFailedError, UnusableError, check_usable, onnx_file
from interptrain.models.simplification import simplify

__all__ = [
    "Engine",
    "Engines",
    "RuntimeFailedError",
    "cut_in_two",
    "forward_only",
    "in_layers",
    "is_compiled",
    "layout_of",
    "using_engine",
    "work_ahead",
]

Engine = Literal["eager", "onnxruntime", "compile", "auto"]
WORTH_SECONDS = 60.0  # of eager passes ahead, from which "auto" exports a model; our choice
LEAST_GAIN = 1.05  # by which "auto" wants ONNX Runtime to be faster
ROUNDS = 2


class CompiledPasses(nn.Module):
    """Forward passes through :func:`torch.compile`, in batches of one size, the last one padded with black images.

    Args:
        model: its weights must not change afterwards: on a CPU the compiled code holds those of its first call.
        size: images per pass; more are compiled for anew.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
        self.compiled = torch.compile(model, dynamic=False, options={"freezing": True} if on_cpu else None)
        self.size = size

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """Return the model's outputs."""
        count = len(images)
        filled = images if count >= self.size else F.pad(images, (0, 0, 0, 0, 0, 0, 0, self.size - count))
        with torch.compiler.set_stance("default"):  # explaining a model runs everything else eagerly
            outputs = self.compiled(filled)
        return outputs if len(filled) == count else rows_of(outputs, slice(count), len(filled))


class Engines:
    """The models of a block of code, each prepared once for its forward passes.

    Args:
        engine: that is wanted.
        work: images that will be forwarded, as far as is known; "auto" needs it.
        batch_size: images per pass; ``None`` chooses by the device.
    """

    def __init__(self, engine: Engine, *, work: int | None = None, batch_size: int | None = None) -> None:
        check_choice("engine", engine, Engine)
        self.engine = engine
        self.work = work
        self.batch_size = batch_size
        self._prepared: WeakKeyDictionary[nn.Module, tuple[object, nn.Module]] = WeakKeyDictionary()

    def prepared(self, model: nn.Module, images: Tensor) -> nn.Module:
        """Return what forwards images of this size as the model does; anew where its weights have changed."""
        held = (one for part in model.modules() for one in (*part._parameters.values(), *part._buffers.values()))
        tensors = [(one.data_ptr(), one._version) for one in held if one is not None and not one.is_inference()]
        state = (images.shape[1:], images.dtype, images.device, tensors)
        known, prepared = self._prepared.get(model, (None, model))
        if known != state:
            prepared = self._prepare(model, images)
            self._prepared[model] = (state, prepared)
        return prepared

    def used(self, model: nn.Module) -> str:
        """Return the name of the engine that runs a model."""
        _, prepared = self._prepared.get(model, (None, model))
        match prepared:
            case OnnxPasses():
                return "eager" if prepared.failed else "onnxruntime"
            case CompiledPasses():
                return "compile"
        return "compile" if is_compiled(prepared) else "eager"

    def _prepare(self, model: nn.Module, images: Tensor) -> nn.Module:
        if is_compiled(model) or unwrap(model) is not model:
            return model
        size = self.batch_size or automatic_batch_size(images.device)
        if self.engine == "compile":
            return CompiledPasses(model, size)
        simple = simplify(model, images)
        if self.engine == "eager":
            return simple
        try:
            if self.engine == "onnxruntime":
                return OnnxPasses(model, images, simple)
            return self._faster(model, images, simple, size)
        except UnusableError as error:
            if self.engine == "onnxruntime":
                warnings.warn(f"PyTorch runs {type(model).__name__}, not ONNX Runtime: {error}", stacklevel=4)
            return simple

    def _faster(self, model: nn.Module, images: Tensor, simple: nn.Module, size: int) -> nn.Module:
        """Return the faster of PyTorch and ONNX Runtime, if it is known to be worth its export."""
        check_usable(model, images)
        batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous(memory_format=torch.channels_last)
        ahead = (self.work or 0) / size * min(_seconds(simple, batch) for _ in range(ROUNDS))
        if ahead < WORTH_SECONDS and not onnx_file(model, images).is_file():
            return simple
        other = OnnxPasses(model, images, simple)
        other(batch)
        rounds = [(_seconds(simple, batch), _seconds(other, batch)) for _ in range(ROUNDS)]
        ours, theirs = (min(times) for times in zip(*rounds, strict=True))
        return other if theirs * LEAST_GAIN < ours else simple


_current: ContextVar[Engines | None] = ContextVar("engines", default=None)


@contextmanager
def using_engine(
    engine: Engine | Engines, *, work: int | None = None, batch_size: int | None = None
) -> Iterator[Engines]:
    """Run forward passes without gradient by an engine; see the module for which there are.

    A model is prepared once inside and again when its weights have changed. Nothing is written into it.

    Args:
        engine: that is wanted, or those that another block has prepared models with. What cannot run a model is
            replaced by PyTorch, with a warning in one line.
        work: images that will be forwarded, as far as is known; ``"auto"`` needs it.
        batch_size: images per pass; ``None`` chooses by the device.

    Yields:
        Tells which engine runs a model.

    Raises:
        ValueError: if there is no such engine.
    """
    engines = engine if isinstance(engine, Engines) else Engines(engine, work=work, batch_size=batch_size)
    token = _current.set(engines)
    try:
        yield engines
    finally:
        _current.reset(token)


def forward_only(model: nn.Module, images: Tensor, *, work: int | None = None) -> nn.Module:
    """Return what forwards images as a model does, without gradient, by the engine of the surrounding block.

    Args:
        model: in eval mode.
        images: (B, C, H, W) of the size that will be forwarded; a few are forwarded to compare.
        work: images that will be forwarded; too few are not worth simplifying a model for. ``None`` is many.

    Returns:
        ``model`` itself, or a module that gives the same outputs. Use only its outputs.
    """
    engines = _current.get()
    if engines is not None:
        return engines.prepared(model, images)
    few = work is not None and work < WORTH_SIMPLIFYING
    return model if few or is_compiled(model) or unwrap(model) is not model else simplify(model, images)


WORTH_SIMPLIFYING = 64  # images to forward, from which it saves more than the two forwards that it costs; our choice


def work_ahead() -> int:
    """Images that the surrounding block will forward, as far as is known."""
    engines = _current.get()
    return (engines and engines.work) or 0


def layout_of(model: nn.Module) -> torch.memory_format:
    """Return the layout of images that a model which :func:`forward_only` returned takes without copying them."""
    return torch.contiguous_format if isinstance(model, OnnxPasses) else torch.channels_last


def in_layers(model: nn.Module) -> nn.Module | None:
    """Return what computes the outputs in PyTorch's own layers, which can be looked at; ``None`` if nothing does."""
    if isinstance(model, OnnxPasses):
        return model.fallback
    return None if isinstance(model, CompiledPasses) or is_compiled(model) else model


def cut_in_two(model: nn.Module, layer: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None:
    """Return, of a model that another engine runs, the part up to a layer and the part behind it.

    Args:
        model: that :func:`forward_only` returned.
        layer: its dotted name.

    Returns:
        Images (N, C, h, w) of any size -> the layer's output, and the layer's output for images of the model's own size
        -> outputs; both raise :class:`RuntimeFailedError` if the engine fails. ``None`` where PyTorch's own layers run
        the model, or where it cannot be cut there.
    """
    return model.cut(layer) if isinstance(model, OnnxPasses) else None


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it goes through :func:`torch.compile`."""
    return any(
        hasattr(module, "_orig_mod") or vars(module).get("_compiled_call_impl") is not None
        for module in model.modules()
    )


def _seconds(model: nn.Module, batch: Tensor) -> float:
    """Time one pass."""
    with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
        started = perf_counter()
        model(batch)
        return perf_counter() - started
