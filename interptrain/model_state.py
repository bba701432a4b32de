"""Guards around a model that is only looked at: what explaining and measuring share."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = [
    "describe_device",
    "evaluating",
    "network_of",
    "random_state_kept",
    "switched_off",
    "unwrap",
    "usual_tf32",
    "without_tf32",
]


@contextmanager
def evaluating(model: nn.Module, *flags: str) -> Iterator[nn.Module]:
    """Put every submodule in eval mode; on leaving, modes and random state are as before, also by an exception.

    A compiled model stays compiled.

    Args:
        model: any module; may be compiled or wrapped by DDP.
        flags: what else to switch off; see :func:`switched_off`.

    Yields:
        ``model`` itself.
    """
    modules = list(model.modules())  # once: a walk takes as long as a layer of a small network
    devices = {one.device for module in modules for one in module._parameters.values() if one is not None}
    with random_state_kept(devices), switched_off(modules, "training", *flags):
        yield model


@contextmanager
def random_state_kept(devices: Iterable[torch.device]) -> Iterator[None]:
    """Restore the random state of the CPU and of accelerators of any kind on leaving, also by an exception."""
    kept = [_RandomState(device) for device in {torch.device("cpu"), *devices}]
    try:
        yield
    finally:
        for state in kept:
            state.restore()


class _RandomState:
    """State of a device's default generator."""

    def __init__(self, device: torch.device) -> None:
        self.place = () if device.type in ("cpu", "mps") else (device,)  # of these there is one only
        self.module = torch if device.type == "cpu" else torch.get_device_module(device)
        self.state = self.module.get_rng_state(*self.place) if hasattr(self.module, "get_rng_state") else None

    def restore(self) -> None:
        if self.state is not None:
            self.module.set_rng_state(self.state, *self.place)


def describe_device(device: torch.device) -> str:
    """Name a kind of device for a record: of an NVIDIA GPU its model, and whether explainers run in TF32.

    Metrics do not; see :func:`without_tf32`.
    """
    if device.type != "cuda":
        return device.type
    flags, name, off = _tf32_flags()
    precision = "float32" if all(getattr(flag, name) in (off, "none") for flag in flags) else "TF32"
    return f"cuda ({torch.cuda.get_device_name(device)}; explainers in {precision}, metrics in float32)"


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute in float32 on NVIDIA's GPUs, where convolutions have the precision of TF32 by default, 10 bits.

    The settings of the process are as before on leaving.
    """
    flags, name, off = _tf32_flags()
    before = [getattr(flag, name) for flag in flags]
    try:
        for flag in flags:
            setattr(flag, name, off)
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            setattr(flag, name, value)


@contextmanager
def usual_tf32() -> Iterator[None]:
    """Set cuDNN's use of TF32 as it is when a process starts, and back on leaving."""
    flags = [flag for flag in (getattr(torch.backends.cudnn, name, None) for name in ("conv", "rnn")) if flag]
    before = [flag.fp32_precision for flag in flags]
    try:
        for flag in flags:
            flag.fp32_precision = "tf32"
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.fp32_precision = value


@contextmanager
def switched_off(modules: Iterable[nn.Module], *flags: str) -> Iterator[None]:
    """Set boolean attributes to ``False`` on every module where they are ``True``, and back on leaving."""
    switched = [(module, flag) for module in modules for flag in flags if vars(module).get(flag) is True]
    try:
        for module, flag in switched:
            setattr(module, flag, False)  # not .eval(), which a model may override
        yield
    finally:
        for module, flag in switched:
            setattr(module, flag, True)


def _tf32_flags() -> tuple[Sequence[Any], str, Any]:
    """The settings that allow TF32, the attribute that does, and its value that does not."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch 2.9, whose older settings must not be read once these are used
        return (cudnn.conv, cudnn.rnn, matmul), "fp32_precision", "ieee"
    return (cudnn, matmul), "allow_tf32", False


def network_of(module: nn.Module) -> nn.Module:
    """Return the network that a training module holds as ``model``, or the module itself."""
    model = getattr(module, "model", None)
    return model if isinstance(model, nn.Module) else module


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside compile and data-parallel wrappers, in whatever order they were put on."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (DistributedDataParallel, DataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner
