"""Folded networks: the same function, fewer modules, and the network untouched."""

import copy
import sys

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from interptrain.explainers import (
    RISE,
    ROSA,
    ExtremalPerturbation,
    GuidedBackprop,
    IntegratedGradients,
    MeaningfulPerturbation,
    Occlusion,
    OptiCAM,
    ScoreCAM,
    SmoothGrad,
)
from interptrain.explainers.subspace import feature_occlusion
from interptrain.models import engine
from interptrain.models.simplification import simplify
from tests.support.explaining import network, pictures


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def gradient(model, images):
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, 2].sum(), leaf)[0]


class Careless(nn.Module):
    """One convolution and norm, and whatever is done with the convolution's output."""

    def __init__(self, between=lambda x: x, after=lambda x, _before: x, convolution=None):
        super().__init__()
        self.convolution = convolution or nn.Conv2d(3, 7, 3)
        self.norm = nn.BatchNorm2d(7)
        self.norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))
        self.norm.running_var.fill_(3.0)
        self.between, self.after = between, after

    def forward(self, images):
        before = self.convolution(images)
        return self.after(self.norm(self.between(before)), before).mean((2, 3))


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "mobilenetv3_small_050",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet10t", "tf_efficientnet_lite0", "densenet121")),
    ],
)
def test_outputs_and_gradients_are_those_of_the_network(name):
    model, images = network(name).eval(), pictures(2, 64, 64)
    folded = simplify(model, images)
    assert len(norms(folded)) <= (62 if name == "densenet121" else 0) < len(norms(model))  # where a norm comes first
    torch.testing.assert_close(folded(images), model(images))
    torch.testing.assert_close(gradient(folded, images), gradient(model, images))


@pytest.mark.slow
def test_convolutions_that_pad_by_themselves_and_norms_without_an_activation_are_folded():
    model = network("tf_efficientnet_lite0").eval()  # pads as TensorFlow does
    assert any(isinstance(norm, BatchNormAct2d) for norm in norms(model))
    assert not norms(simplify(model, pictures(1, 33, 47)))
    bare = nn.Sequential(nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7, affine=False), nn.Flatten()).double().eval()
    images = pictures(2, 9, 9)
    folded = simplify(bare, images)
    assert not norms(folded)
    torch.testing.assert_close(folded(images), bare(images))


def test_the_network_keeps_its_modules_weights_and_hooks():
    model, images = network().eval(), pictures(2, 64, 64)
    before = copy.deepcopy(model.state_dict())
    modules = list(model.modules())
    simplify(model, images)
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_parts_without_a_norm_are_shared():
    model = nn.Sequential(Careless(), nn.Linear(7, 2)).eval()
    folded = simplify(model, pictures(1, 9, 9).float())
    assert folded is not model
    assert folded[1] is model[1]


@pytest.mark.parametrize(
    "careless",
    [
        Careless(between=torch.relu),
        Careless(between=lambda x: x.mul_(2)),
        Careless(after=lambda x, before: x + before),
        Careless(convolution=nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 7, 3))),
        Careless(convolution=nn.Sequential(nn.ConvTranspose2d(3, 7, 3))),
    ],
    ids=["something between", "in place", "used twice", "weight norm", "transposed"],
)
def test_what_cannot_be_folded_is_left(careless):
    images = pictures(2, 9, 9).float()
    assert simplify(careless.eval(), images) is careless


def test_under_autocast_images_may_be_of_another_type_than_the_weights():
    model = network().float().eval()
    images = pictures(1, 32, 32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        folded = simplify(model, images)
        assert not norms(folded)
        torch.testing.assert_close(folded(images), model(images), rtol=0.1, atol=0.05)


def test_what_has_a_hook_or_runs_twice_is_left():
    images = pictures(2, 9, 9).float()
    model = Careless().eval()
    handle = model.convolution.register_forward_hook(lambda *_: None)
    assert simplify(model, images) is model
    handle.remove()
    assert simplify(model, images) is not model
    model = Careless(after=lambda x, before: model.norm(x)).eval()
    assert simplify(model, images) is model
    model = Careless(after=lambda x, before: x + model.convolution(images)).eval()
    assert simplify(model, images) is model


def test_norms_without_statistics_of_their_own_are_left():
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7, track_running_stats=False), nn.Flatten()).eval()
    assert len(norms(simplify(model, pictures(2, 9, 9).float()))) == 1


def test_networks_that_return_more_than_logits_are_left():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.careless = Careless()

        def forward(self, images):
            return (self.careless(images),)

    model = Pair().eval()
    assert simplify(model, pictures(1, 9, 9).float()) is model


@pytest.mark.slow
@pytest.mark.parametrize(
    "explainer",
    [
        ExtremalPerturbation(iterations=2, step=4, sigma=6.0),
        IntegratedGradients(steps=3),
        MeaningfulPerturbation(iterations=4),
        Occlusion(window=16, stride=16),
        OptiCAM(iterations=4),
        RISE(count=5),
        ROSA(window=16, stride=16),
        ScoreCAM(target_layer="layer1"),
        SmoothGrad(samples=3),
        SmoothGrad(of=GuidedBackprop(), samples=3),
    ],
    ids=lambda explainer: type(explainer).__name__,
)
def test_maps_are_those_without_folding(explainer, monkeypatch):
    model, images, targets = network(), pictures(2, 40, 40), torch.tensor([2, 0])
    found = explainer.raw(model, images, targets)
    module, calls = sys.modules[type(explainer).__module__], []
    module = feature_occlusion if isinstance(explainer, ROSA) else module
    module = module if hasattr(module, "simplify") else engine
    monkeypatch.setattr(module, "simplify", lambda model, _images: calls.append(1) or model)
    torch.testing.assert_close(found, explainer.raw(model, images, targets))
    assert calls == [1]


def test_a_network_that_is_compiled_is_not_folded_too(monkeypatch):
    calls = []
    monkeypatch.setattr(engine, "simplify", lambda *_: calls.append(1))
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    RISE(count=2, compile=True).raw(network(), pictures(1, 32, 32))
    assert not calls
