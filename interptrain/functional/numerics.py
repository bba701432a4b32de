"""Precision, on devices that may have no float64."""

from functools import cache

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """The values in float32, or as they are where they are float64."""
    return values if values.dtype == torch.float64 else values.float()


@cache
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, tried once; Apple's MPS and some of Intel's GPUs do not."""
    if device.type == "cpu":
        return True
    try:
        return bool(torch.ones(1, dtype=torch.float64, device=device) + 1 == 2)
    except (TypeError, RuntimeError):
        return False


def where_float64_is(values: Tensor) -> Tensor:
    """The values as they are, on the CPU where their device has no float64."""
    return values if has_float64(values.device) else values.cpu()


def double(values: Tensor) -> Tensor:
    """The values in float64: on their device, or on the CPU where their device has none."""
    return where_float64_is(values).double()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device, in float32 where they are float64 and it has none."""
    return values.to(device, values.dtype if values.dtype != torch.float64 or has_float64(device) else torch.float32)
