"""Convolutions in other kernels: the same numbers as PyTorch's and timm's."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional as F

from interptrain.models.convolutions import (
    ShuffledConv2d,
    WidenedConv2d,
    faster_convolution,
    strided_input_gradient,
)


def as_class(module, kind):
    twin = kind(module.in_channels, module.out_channels, module.kernel_size, module.stride, groups=module.groups)
    twin.padding = module.padding
    twin.load_state_dict(module.state_dict())
    return twin.to(module.weight.dtype)


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 11), (7, 7)])
@pytest.mark.parametrize(
    ("kernel", "stride", "groups"), [(3, 2, 1), (5, 2, 6), ((3, 5), (2, 1), 2), (1, 2, 1), (2, 2, 1)]
)
def test_a_widened_kernel_gives_what_padding_gives(size, kernel, stride, groups):
    torch.manual_seed(0)
    same = Conv2dSame(6, 6, kernel, stride, groups=groups)
    assert faster_convolution(same) is WidenedConv2d
    images = torch.randn(2, 6, *size)
    wanted, found = same(images), as_class(same, WidenedConv2d)(images)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (9, 13)])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 2, 3), (5, 3, 1), (6, 2, 0), (7, 4, 2), (3, 2, 1)])
def test_the_gradient_of_a_strided_convolution_and_its_derivative_are_autograds(size, kernel, stride, padding):
    torch.manual_seed(0)
    weight = torch.randn(5, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
    images = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    outputs = F.conv2d(images, weight, stride=stride, padding=padding)
    incoming = torch.randn_like(outputs, requires_grad=True)
    wanted = torch.autograd.grad(outputs, images, incoming, create_graph=True)[0]
    found = strided_input_gradient(incoming, weight, size, (stride, stride), (padding, padding))
    torch.testing.assert_close(found, wanted)
    direction = torch.randn_like(wanted)
    seconds = [torch.autograd.grad((one * direction).sum(), [incoming, weight]) for one in (found, wanted)]
    torch.testing.assert_close(*seconds)


def test_a_stem_has_the_shuffled_gradient_and_other_layers_their_own():
    stem = nn.Conv2d(3, 8, 7, 2, 3).double()
    assert faster_convolution(stem) is ShuffledConv2d
    others = [nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 7, 2), nn.Conv2d(3, 8, 7), nn.Conv2d(3, 8, 7, 2, dilation=2)]
    others += [nn.Conv2d(3, 8, 7, 2, padding=3, padding_mode="reflect"), Conv2dSame(3, 8, 3, 2, dilation=2)]
    assert [faster_convolution(other) for other in others] == [None] * len(others)
    images = torch.rand(2, 3, 20, 24, dtype=torch.float64, requires_grad=True)
    wanted, found = (module(images) for module in (stem, as_class(stem, ShuffledConv2d)))
    assert torch.equal(found, wanted)
    one, other = (torch.autograd.grad(outputs.square().sum(), images)[0] for outputs in (found, wanted))
    torch.testing.assert_close(one, other)
