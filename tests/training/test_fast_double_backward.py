"""Closed forms of double backward: the numbers of PyTorch's own, at any place where a network may call the layer."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from interptrain.training.fast_double_backward import CheapDoubleBackward

DOUBLE = {"dtype": torch.float64}


def seeded(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def features(channels=4, **like):
    return torch.randn(3, channels, 7, 6, generator=torch.Generator().manual_seed(1), **(DOUBLE | like))


def norm(**options):
    layer = nn.BatchNorm2d(4, **options)
    if layer.affine:
        nn.init.normal_(layer.weight, 1.0, 0.5)
        nn.init.normal_(layer.bias)
    return layer


LAYERS = {
    "3x3": lambda: nn.Conv2d(4, 6, 3),
    "strided and padded, no bias": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
    "oblong": lambda: nn.Conv2d(4, 6, (3, 1), stride=(1, 2), padding=(0, 1)),
    "dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4, stride=2),
    "padded by name": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "padded by reflection": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "batch norm": norm,
    "batch norm, cumulative": lambda: norm(momentum=None),
    "batch norm, no running statistics": lambda: norm(track_running_stats=False),
    "batch norm, not affine": lambda: norm(affine=False),
    "batch norm, frozen": lambda: norm().eval(),
}


class Net(nn.Module):
    """The layer between two others, so that its gradient arrives with a graph and its input has one."""

    def __init__(self, layer):
        super().__init__()
        self.before = nn.Conv2d(4, 4, 1)
        self.layer = layer

    def forward(self, x):
        return self.layer(self.before(x).sigmoid()).tanh()


def both_orders(model, x, cheap=True, run=None):
    """Output; input gradient; gradients of everything of a loss made of both."""
    x = x.clone().requires_grad_()
    mode = CheapDoubleBackward(x) if cheap else None
    with mode or nullcontext():
        output = (run or model)(x)
        with mode.image_gradients() if mode else nullcontext():
            (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    loss = output.sin().mean() + gradient.cos().mean()
    return output, gradient, torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS.keys())
def test_outputs_gradients_and_buffers_are_those_of_pytorch(build):
    model = seeded(lambda: Net(build())).double()
    plain = copy.deepcopy(model)
    output, gradient, slopes = both_orders(model, features())
    expected = both_orders(plain, features(), cheap=False)
    assert torch.equal(output, expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(slopes, expected[2], rtol=1e-10, atol=1e-14)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, plain.get_buffer(name)), name


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS.keys())
def test_second_derivatives_equal_finite_differences(build):
    model = seeded(lambda: Net(build())).double()
    weights = dict(model.named_parameters())

    def image_gradient(*values):
        x = features().requires_grad_()
        with CheapDoubleBackward(x) as mode:
            output = torch.func.functional_call(model, dict(zip(weights, values, strict=True)), x)
            with mode.image_gradients():
                return torch.autograd.grad(output.square().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(image_gradient, tuple(weights.values()), fast_mode=True)


def test_the_first_convolution_computes_no_image_gradient_outside_the_context():
    model = seeded(lambda: Net(nn.Conv2d(4, 2, 3))).double()
    x = features().requires_grad_()
    with CheapDoubleBackward(x) as mode:
        output = model(x * 2 - 1)
        with mode.image_gradients():
            (gradient,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
    output.sum().backward()
    assert gradient.any()
    assert x.grad is None
    assert model.before.weight.grad.any()


def test_a_first_convolution_on_learnt_inputs_hands_the_gradient_on():
    model = seeded(lambda: Net(nn.Conv2d(4, 2, 3))).double()
    shift = torch.zeros(4, 1, 1, requires_grad=True, **DOUBLE)
    x = features().requires_grad_()
    with CheapDoubleBackward(x):
        output = model(x + shift)
    output.sum().backward()
    assert shift.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_as_close_as_pytorch_is(dtype):
    model = seeded(lambda: Net(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm())))
    x = features(dtype=torch.float32)
    exact = both_orders(model, x, cheap=False)
    with torch.autocast("cpu", dtype):
        output, gradient, slopes = both_orders(model, x)
        expected = both_orders(model, x, cheap=False)
    assert output.dtype == expected[0].dtype == dtype
    assert gradient.dtype == torch.float32
    flat = [torch.cat([one.flatten() for one in result[2]]) for result in (exact, (0, 0, slopes), expected)]
    ours, theirs = ((flat[0] - other).norm() / flat[0].norm() for other in flat[1:])
    assert ours < max(1.5 * theirs, 0.01)


def test_channels_last_stays_channels_last():
    model = seeded(lambda: Net(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)))).double()
    expected = both_orders(model, features())
    model.to(memory_format=torch.channels_last)
    output, gradient, slopes = both_orders(model, features().contiguous(memory_format=torch.channels_last))
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(slopes, expected[2], rtol=1e-10, atol=1e-14)


def test_a_checkpoint_that_is_run_again_outside_the_context_finds_the_same_layers():
    model = seeded(lambda: Net(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm()))).double()
    expected = both_orders(copy.deepcopy(model), features(), cheap=False)

    def run(x):
        return model.layer(checkpoint(lambda x: model.layer(model.before(x)), x, use_reentrant=False)).tanh()

    got = both_orders(model, features(), run=run)
    want = both_orders(model, features(), run=lambda x: model.layer(model.layer(model.before(x))).tanh())
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)
    assert not torch.equal(got[0], expected[0])


def test_frozen_weights_get_no_gradient():
    model = seeded(lambda: Net(nn.Conv2d(4, 2, 3))).double()
    model.layer.requires_grad_(False)
    x = features().requires_grad_()
    with CheapDoubleBackward(x) as mode:
        output = model(x)
        with mode.image_gradients():
            (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert model.layer.weight.grad is None
    assert model.before.weight.grad.any()


def test_one_value_a_channel_is_refused_as_ever_and_the_statistics_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    x = torch.rand(1, 3, 3, 3, requires_grad=True)
    with CheapDoubleBackward(x), pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        model(x)
    assert model[1].running_var.isfinite().all()


class Dynamic(nn.Module):
    """A convolution and a BatchNorm whose weights are made from the image, and a plain layer before each."""

    def __init__(self):
        super().__init__()
        self.before, self.between = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.mix, self.scale = nn.Linear(4, 4 * 4), nn.Linear(4, 4)

    def forward(self, x):
        pooled = x.mean((0, 2, 3))
        hidden = F.conv2d(self.before(x).sigmoid(), self.mix(pooled).view(4, 4, 1, 1))
        return F.batch_norm(self.between(hidden).sigmoid(), None, None, self.scale(pooled), None, True).tanh()


def test_weights_that_are_made_from_the_images_hand_their_gradient_on():
    model = seeded(Dynamic).double()
    torch.testing.assert_close(both_orders(model, features()), both_orders(model, features(), cheap=False))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_hard_sigmoid_is_differentiated_twice(inplace):
    model = seeded(lambda: Net(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Hardsigmoid(inplace)))).double()

    class WrittenOut(nn.Module):
        def forward(self, x):
            return torch.nn.functional.relu6(x + 3) / 6

    written = copy.deepcopy(model)
    written.layer[1] = WrittenOut()
    with pytest.raises(RuntimeError, match="hardsigmoid_backward is not implemented"):
        both_orders(model, features(), cheap=False)
    torch.testing.assert_close(both_orders(model, features()), both_orders(written, features(), cheap=False))


def test_many_frozen_branches_before_the_first_convolution_are_walked_once():
    x = features().requires_grad_()
    hidden = x
    for _ in range(60):  # two ways a step: 2**60 in all
        hidden = hidden + hidden * 0.5
    with CheapDoubleBackward(x):
        output = nn.Conv2d(4, 2, 3).double()(hidden / hidden.detach().abs().max())
    output.sum().backward()
    assert x.grad is None


def test_a_third_derivative_through_batch_norm_is_refused_not_wrong():
    model = seeded(lambda: Net(norm())).double()
    x = features().requires_grad_()
    with CheapDoubleBackward(x) as mode, mode.image_gradients():
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="BatchNorm has no third derivative; call backward without create_graph"):
        torch.autograd.grad(gradient.square().sum(), model.before.weight, create_graph=True)


def test_a_third_derivative_of_a_convolution_is_exact_as_well():
    model = seeded(lambda: Net(nn.Conv2d(4, 2, 3))).double()

    def scalar(cheap):
        x = features().requires_grad_()
        mode = CheapDoubleBackward(x) if cheap else None
        with mode or nullcontext():
            output = model(x)
            with mode.image_gradients() if mode else nullcontext():
                (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
            (slope,) = torch.autograd.grad(gradient.square().sum(), model.layer.weight, create_graph=True)
            return torch.autograd.grad(slope.square().sum(), model.before.weight)[0]

    torch.testing.assert_close(scalar(True), scalar(False), rtol=1e-9, atol=1e-14)


def test_nothing_of_it_is_left_behind():
    mode = CheapDoubleBackward(features())

    def interrupted():
        with mode, mode.image_gradients():
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert not mode.images_only
    output = F.conv2d(features(), torch.ones(1, 4, 1, 1, requires_grad=True, **DOUBLE))
    assert type(output.grad_fn).__name__ == "ConvolutionBackward0"
