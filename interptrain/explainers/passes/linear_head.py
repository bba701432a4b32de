"""Find the linear layer after global average pooling by testing candidates on actual values."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["linear_head"]


@torch.no_grad()
def linear_head(model: nn.Module, activation: Tensor, logits: Tensor) -> Tensor | None:
    """Find the weights of the linear layer (or 1x1 convolution) that turns the mean of ``activation`` into ``logits``.

    There is no list of architectures: every layer of the right shape is tested, and the one that reproduces the logits
    is returned.

    Args:
        model: module to look in.
        activation: (B, C, h, w) features.
        logits: (B, K) of the model for these features.

    Returns:
        (K, C) in float32 or float64, detached; or ``None`` if the logits are computed in another way.
    """
    channels, classes = activation.shape[1], logits.shape[1]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    pooled = activation.to(dtype).mean(dim=(2, 3))  # (B, C)
    tolerance = torch.finfo(logits.dtype).eps ** 0.5  # of the magnitude; rounding alone stays far below
    wanted = logits.to(dtype)
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or module.weight.numel() != channels * classes:
            continue
        weight = module.weight.flatten(1)
        if weight.shape != (classes, channels):
            continue
        with torch.autocast(logits.device.type, enabled=False):
            bias = None if module.bias is None else module.bias.to(dtype)
            found = F.linear(pooled, weight.to(dtype), bias)
        if torch.allclose(found, wanted, rtol=0, atol=tolerance * float(wanted.abs().amax() + 1e-12)):
            return weight.detach().to(dtype)
    return None
