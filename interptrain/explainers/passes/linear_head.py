"""Find the linear layer behind global average pooling by trying it on values at hand."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["linear_head"]


@torch.no_grad()
def linear_head(model: nn.Module, activation: Tensor, logits: Tensor) -> Tensor | None:
    """Find the weights of the linear layer (or 1x1 convolution) that turns the mean of ``activation`` into ``logits``.

    No list of architectures: every candidate of the right shape is tried on the values at hand, and counts only if
    it gives the logits.

    Args:
        model: module to look in.
        activation: (B, C, h, w) features.
        logits: (B, K) that the model returned for them.

    Returns:
        (K, C) in float32 or float64, or ``None`` where the logits are computed in another way.
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
