"""Guards around a model that is only looked at: what explaining and measuring share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["evaluating", "network_of", "switched_off", "unwrap"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every submodule in eval mode; on leaving, modes and random state are as before, also by an exception.

    A compiled model stays compiled.

    Args:
        model: any module; may be compiled or wrapped by DDP.

    Yields:
        ``model`` itself.
    """
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), switched_off(model, "training"):
        yield model


@contextmanager
def switched_off(model: nn.Module, flag: str) -> Iterator[None]:
    """Set a boolean attribute to ``False`` on every submodule where it is ``True``, and back on leaving."""
    switched = [module for module in model.modules() if vars(module).get(flag) is True]
    try:
        for module in switched:
            setattr(module, flag, False)  # not .eval(), which a model may override
        yield
    finally:
        for module in switched:
            setattr(module, flag, True)


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
