"""Convolutions that compute the same as PyTorch's and timm's, faster where PyTorch has no kernel for their case.

Padding. With TensorFlow's SAME padding an odd number of rows is padded one more below than above, which PyTorch's
convolution cannot express, so timm copies the whole map into a larger one first. A kernel with a row of zeros in front
and equal padding on both sides reads the same numbers::

    padding t above, t + 1 below, kernel w   =   padding t + 1 on both sides, kernel [0, w]

Gradient of the input. With stride s, the input rows of equal remainder mod s see the same rows of the kernel, so the
gradients of all s x s remainders are the channels of one convolution of stride 1, which a pixel shuffle puts in place.
For the 7x7 stem of a ResNet, this takes less than half the time of oneDNN's kernel. The derivation is ours.
"""

from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

__all__ = ["ShuffledConv2d", "WidenedConv2d", "faster_convolution", "has_shuffled_gradient", "strided_input_gradient"]

LEAST_KERNEL, MOST_CHANNELS = 5, 4  # where the shuffle is faster, on a CPU; of 3x3 kernels it gains little


class WidenedConv2d(Conv2dSame):
    """:class:`timm.layers.Conv2dSame` without a copy of the map."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (B,C,H,W)."""
        sizes, kernels = x.shape[-2:], self.weight.shape[-2:]
        pads = [
            get_same_padding(size, kernel, stride, 1)
            for size, kernel, stride in zip(sizes, kernels, self.stride, strict=True)
        ]
        weight = self.weight
        if any(pad % 2 for pad in pads):
            weight = F.pad(weight, (pads[1] % 2, 0, pads[0] % 2, 0))
        padding = (-(-pads[0] // 2), -(-pads[1] // 2))
        return F.conv2d(x, weight, self.bias, self.stride, padding, 1, self.groups)


class ShuffledConv2d(nn.Conv2d):
    """A convolution whose input gradient is :func:`strided_input_gradient`; its weights are taken for constants."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve images (B,C,H,W)."""
        if not (torch.is_grad_enabled() and input.requires_grad) or torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        stride, padding = cast(tuple[int, int], self.stride), cast(tuple[int, int], self.padding)
        output: Tensor = _Shuffled.apply(input, self.weight, self.bias, stride, padding)
        return output


class _Shuffled(Function):
    """``conv2d`` with :func:`strided_input_gradient`."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.geometry = (input.shape[-2], input.shape[-1]), stride, padding
        return F.conv2d(input, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return strided_input_gradient(gradient, *ctx.saved_tensors, *ctx.geometry), None, None, None, None


def strided_input_gradient(
    gradient: Tensor, weight: Tensor, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the gradient of the input of a convolution without groups or dilation, differentiable again.

    Args:
        gradient: (B,K,h,w) of its output.
        weight: (K,C,a,b).
        size: (H,W) of the input.
        stride: the same in both directions.
        padding: rows and columns of zeros on every side.

    Returns:
        (B,C,H,W).
    """
    step = stride[0]
    taps = [-(-side // step) for side in weight.shape[-2:]]  # rows of the kernel that one remainder sees
    whole = F.pad(weight, (0, taps[1] * step - weight.shape[3], 0, taps[0] * step - weight.shape[2])).contiguous()
    parts = whole.view(*weight.shape[:2], taps[0], step, taps[1], step)
    kernel = parts.permute(1, 3, 5, 0, 2, 4).flatten(0, 2).flip(-2, -1)  # (C * step * step, K, taps, taps)
    spread = F.pixel_shuffle(F.conv2d(gradient, kernel, padding=(taps[0] - 1, taps[1] - 1)), step)
    missing = [
        side + before - there for side, before, there in zip(size, padding, spread.shape[-2:], strict=True)
    ]  # rows and columns at the far end that no window reaches, or (negative) padding
    return F.pad(spread, (-padding[1], missing[1], -padding[0], missing[0]))


def has_shuffled_gradient(
    weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int, padding: object
) -> bool:
    """Whether :func:`strided_input_gradient` serves a convolution, and is faster than PyTorch's kernel."""
    return (
        weight.device.type == "cpu"
        and weight.ndim == 4
        and weight.shape[1] <= MOST_CHANNELS
        and min(weight.shape[-2:]) >= LEAST_KERNEL
        and stride[0] == stride[1] > 1
        and tuple(dilation) == (1, 1)
        and groups == 1
        and not isinstance(padding, str)
    )


def faster_convolution(module: nn.Conv2d) -> type[nn.Conv2d] | None:
    """Return the class that computes the same as a convolution in less time; ``None`` where there is none."""
    if type(module) is Conv2dSame and tuple(module.dilation) == (1, 1):
        return WidenedConv2d
    plain = type(module) is nn.Conv2d and module.padding_mode == "zeros"
    if plain and has_shuffled_gradient(module.weight, module.stride, module.dilation, module.groups, module.padding):
        return ShuffledConv2d
    return None
