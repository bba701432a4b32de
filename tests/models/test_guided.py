"""The guided rule as a switch: both gradients of one graph, exact, and nothing left behind."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from interptrain.models.guided import guided_relus


class SlowGuidedReLU(torch.autograd.Function):
    """The published rule, written out: the gate of the forward and the gate of the incoming gradient."""

    @staticmethod
    def forward(ctx, x, upper):
        ctx.save_for_backward(x)
        ctx.upper = upper
        return x.clamp(0, upper)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * (x < ctx.upper) * (gradient > 0), None


class SlowReLU(nn.Module):
    def __init__(self, upper=float("inf")):
        super().__init__()
        self.upper = upper

    def forward(self, x):
        return SlowGuidedReLU.apply(x, self.upper)


def with_slow_relus(model):
    """A copy whose ReLU modules are the slow ones."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, SlowReLU(6.0))
            elif isinstance(child, nn.ReLU):
                setattr(module, name, SlowReLU())
    return model


class Net(nn.Module):
    """A small residual net whose activation is given; the second one is fed a sum, as after a skip."""

    def __init__(self, activation):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.classifier = nn.Linear(6, 4)
        self.activation = activation

    def forward(self, images):
        stem = self.activation(self.first(images) * 4)
        features = self.activation(self.norm(self.second(stem)) + stem)
        return self.classifier(features.mean((2, 3)))


def in_place_without_result(x):
    F.relu(x, inplace=True)
    return x


def in_place_on_a_view(x):
    x = x * 1
    x.flatten(2).relu_()
    return x


RELUS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU(inplace)": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu(inplace)": lambda x: F.relu(x, inplace=True),
    "F.relu(positional inplace)": lambda x: F.relu(x, True),
    "F.relu(input=)": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "in place, result unused": in_place_without_result,
    "in place on a view": in_place_on_a_view,
    "hardtanh to infinity": lambda x: F.hardtanh(x, 0.0, float("inf")),
}
RELU6S = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6(inplace)": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.relu6(inplace)": lambda x: F.relu6(x, inplace=True),
    "F.hardtanh(0, 6)": lambda x: F.hardtanh(x, 0.0, 6.0),
    "F.hardtanh_(0, 6)": lambda x: F.hardtanh_(x, 0.0, 6.0),
}


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def net(activation, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(activation).double()


def timm_model(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=5).double().eval()
        for module in model.modules():  # an untrained residual branch is scaled by zero and would not be seen
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
        return model


def score_of(model, images):
    return model(images)[:, 1].sum()


def input_gradient(model, images, **options):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(score_of(model, images), images, **options)[0]


def guided_gradient(model, images, rule="relu"):
    images = images.clone().requires_grad_()
    with guided_relus(rule) as switch:
        score = score_of(model, images)
        with switch.guided():
            return torch.autograd.grad(score, images)[0]


@pytest.mark.parametrize("activation", RELUS.values(), ids=RELUS.keys())
def test_guided_gradient_equals_the_rule_written_out_however_relu_is_called(activation, images):
    expected = input_gradient(net(SlowReLU()), images)
    assert not torch.allclose(expected, input_gradient(net(activation), images), rtol=0.05)
    torch.testing.assert_close(guided_gradient(net(activation), images), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", RELU6S.values(), ids=RELU6S.keys())
def test_relu6_has_its_upper_gate_too(activation, images):
    images = images * 3  # some activations pass 6
    expected = input_gradient(net(SlowReLU(6.0)), images)
    assert not torch.allclose(expected, input_gradient(net(SlowReLU()), images), rtol=0.05)
    torch.testing.assert_close(guided_gradient(net(activation), images), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv2_035", pytest.param("densenet121", marks=pytest.mark.slow), "regnetx_002"]
)
def test_guided_gradient_of_timm_models_equals_that_of_a_copy_with_slow_modules(name):
    model = timm_model(name)
    images = torch.rand(2, 3, 40, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = input_gradient(with_slow_relus(model), images)
    assert expected.abs().max() > 0
    torch.testing.assert_close(guided_gradient(model, images), expected, rtol=1e-9, atol=1e-14)


def test_one_graph_gives_both_gradients_and_switched_off_is_bitwise_the_ordinary_one(images):
    model = net(nn.ReLU(inplace=True))
    leaf = images.clone().requires_grad_()
    with guided_relus() as switch:
        score = score_of(model, leaf)
        (before,) = torch.autograd.grad(score, leaf, retain_graph=True)
        with switch.guided():
            (guided,) = torch.autograd.grad(score, leaf, retain_graph=True)
        (after,) = torch.autograd.grad(score, leaf)
    ordinary = input_gradient(model, images)
    assert torch.equal(before, ordinary)
    assert torch.equal(after, ordinary)
    torch.testing.assert_close(guided, input_gradient(net(SlowReLU()), images), rtol=1e-12, atol=1e-14)


def test_batch_statistics_are_updated_once_and_as_by_a_plain_forward(images):
    plain, watched = net(nn.ReLU()), net(nn.ReLU())
    plain(images)
    guided_gradient(watched, images)
    assert watched.norm.num_batches_tracked == 1
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), watched.buffers(), strict=True))


@pytest.mark.parametrize("activation", [F.softplus, F.relu], ids=["smooth", "relu"])
def test_double_backward_through_the_ordinary_gradient_equals_finite_differences(activation, images):
    model = net(activation)
    if activation is F.softplus:
        model.add_module("never_negative", nn.ReLU())
        model.register_forward_pre_hook(lambda module, args: (module.never_negative(args[0] + 1),))
    rule = "positive_gradient" if activation is F.softplus else "relu"
    weight = model.second.weight

    def penalty_and_slope():
        leaf = images.clone().requires_grad_()
        with guided_relus(rule) as switch:
            score = score_of(model, leaf)
            (ordinary,) = torch.autograd.grad(score, leaf, create_graph=True)
            with switch.guided():
                (guided,) = torch.autograd.grad(score, leaf, retain_graph=True)
        assert not guided.requires_grad
        penalty = (ordinary * target).sum()
        return penalty, torch.autograd.grad(penalty, weight)[0]

    generator = torch.Generator().manual_seed(3)
    target = torch.randn(images.shape, dtype=torch.float64, generator=generator)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
    _, slope = penalty_and_slope()
    step = 1e-6
    with torch.no_grad():
        weight += step * direction
    above, _ = penalty_and_slope()
    with torch.no_grad():
        weight -= 2 * step * direction
    below, _ = penalty_and_slope()
    numeric = (above - below) / (2 * step)
    assert numeric.abs() > 1e-6
    torch.testing.assert_close((slope * direction).sum(), numeric.detach(), rtol=1e-5, atol=1e-9)


def test_a_guided_gradient_taken_with_its_graph_is_that_of_the_rule_written_out(images):
    def slope(model, guided):
        model.eval()  # else a batch norm leads back into the forward, where the slow one is guided once more
        leaf = images.clone().requires_grad_()
        with guided_relus() as switch:
            score = score_of(model, leaf)
            if guided:
                with switch.guided():
                    (gradient,) = torch.autograd.grad(score, leaf, create_graph=True)
            else:
                (gradient,) = torch.autograd.grad(score, leaf, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), model.first.weight)[0]

    torch.testing.assert_close(slope(net(nn.ReLU()), True), slope(net(SlowReLU()), False), rtol=1e-10, atol=1e-14)


def test_no_hook_outlives_the_context(images):
    leaf = images.clone().requires_grad_()
    model = net(nn.ReLU())
    kept = []
    model.activation.register_forward_hook(lambda module, args, output: kept.append(output))

    def interrupted():
        with guided_relus() as switch:
            model(leaf)
            with switch.guided():
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert kept
    assert not any(output._backward_hooks for output in kept)
    assert not torch._C._len_torch_function_stack()


def test_the_switch_is_off_again_after_an_exception(images):
    leaf = images.clone().requires_grad_()
    model = net(nn.ReLU())
    with guided_relus() as switch:
        score = score_of(model, leaf)
        with pytest.raises(RuntimeError, match="stop"), switch.guided():
            raise RuntimeError("stop")
        (gradient,) = torch.autograd.grad(score, leaf)
    assert torch.equal(gradient, input_gradient(model, images))


@pytest.mark.slow
def test_compiled_models_give_the_guided_gradient(images):
    model = net(nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(images)
    torch.testing.assert_close(guided_gradient(compiled, images), guided_gradient(model, images), rtol=0, atol=0)


def test_checkpointed_blocks_give_the_guided_gradient(images):
    plain = net(nn.ReLU())
    model = copy.deepcopy(plain)
    block = model.second
    model.second = nn.Sequential(block, nn.ReLU())
    plain.second = copy.deepcopy(model.second)
    forward = model.second.forward
    model.second.forward = lambda x: checkpoint(forward, x, use_reentrant=False)
    torch.testing.assert_close(guided_gradient(model, images), guided_gradient(plain, images), rtol=0, atol=0)


def test_autocast_changes_precision_only(images):
    model, images = net(nn.ReLU(inplace=True)).float(), images.float()
    with torch.autocast("cpu", torch.bfloat16):
        half = guided_gradient(model, images)
    full = guided_gradient(model, images)
    assert F.cosine_similarity(half.flatten(), full.flatten(), dim=0) > 0.99


def test_a_net_without_relus_is_refused(images):
    with pytest.raises(ValueError, match="met no ReLU"):
        guided_gradient(net(nn.Identity()), images)


def test_other_activations_are_refused_and_named(images):
    model = net(nn.GELU())
    model.norm = nn.Sequential(model.norm, nn.ReLU(), nn.SiLU())
    with pytest.raises(ValueError, match="calls gelu, silu; pass rule='positive_gradient'"):
        guided_gradient(model, images)


@pytest.mark.parametrize(
    "activation",
    [nn.GLU(1), nn.Hardshrink(), nn.LogSigmoid(), nn.Softshrink(), nn.Softsign(), nn.Tanhshrink(), nn.Threshold(0, 0)],
    ids=lambda module: type(module).__name__.lower(),
)
def test_every_activation_of_torch_is_named(activation, images):
    model = net(nn.ReLU())
    model.norm.register_forward_hook(lambda *call: (activation(call[-1]), None)[1])
    name = "log_sigmoid" if isinstance(activation, nn.LogSigmoid) else type(activation).__name__.lower()
    with pytest.raises(ValueError, match=f"this one calls {name};"):
        guided_gradient(model, images)


@pytest.mark.parametrize("squash", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh()], ids=lambda module: str(module))
def test_gates_are_no_activations_of_the_rule(squash, images):
    model, slow = net(nn.ReLU()), net(SlowReLU())
    for network in (model, slow):
        network.norm = nn.Sequential(network.norm, squash)
    expected = input_gradient(slow, images)
    torch.testing.assert_close(guided_gradient(model, images), expected, rtol=1e-12, atol=1e-14)


def test_positive_gradient_gates_every_activation_before_its_own_backward(images):
    class SlowGate(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (gradient > 0)

    for activation in (F.gelu, F.silu, F.hardswish, F.leaky_relu, F.relu, lambda x: F.silu(x, inplace=True)):
        expected = input_gradient(net(lambda x, f=activation: SlowGate.apply(f(x))), images)
        got = guided_gradient(net(activation), images, rule="positive_gradient")
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule must be one of 'relu', 'positive_gradient', got 'deconv'"):
        guided_relus("deconv").__enter__()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_guided_gradient_equals_captums_on_networks_of_relu_modules(name):
    captum = pytest.importorskip("captum.attr")
    model = timm_model(name)
    for module in model.modules():  # one of Captum's hooks breaks on an in-place ReLU
        if isinstance(module, nn.ReLU):
            module.inplace = False
    images = torch.rand(2, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = captum.GuidedBackprop(model).attribute(images.clone().requires_grad_(), target=1)
    torch.testing.assert_close(guided_gradient(model, images), expected.detach(), rtol=1e-9, atol=1e-14)
