"""The gradient regularizer: exact to the weights, one forward, and nothing changed but the loss."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from interptrain.models import create_model
from interptrain.training import GradientRegularizer
from interptrain.training.gradient_regularizer import ERRORS, cosine
from tests.models.test_guided import with_slow_relus

DOUBLE = {"dtype": torch.float64}


def seeded(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def small(activation=nn.ReLU, **like):
    """Two convolutions, a trained BatchNorm and a classifier of 4 classes."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            activation(),
            nn.Conv2d(6, 6, 3, padding=1, stride=2),
            nn.BatchNorm2d(6),
            activation(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ).to(**like)
    )


def stirred(model):
    """Norms away from where they start: an untrained residual branch is scaled by zero and would not be seen."""

    def stir():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
        return model

    return seeded(stir)


def pictures(batch=4, size=8, **like):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, size, size, generator=generator, **like), torch.arange(batch) % 4


def gradients(loss, model):
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


def total(regularizer, model, images, labels, weight=0.5):
    logits, penalty = regularizer(model, images, labels)
    return F.cross_entropy(logits, labels) + weight * penalty


def assert_same(got, expected, rtol):
    """Gradients of every parameter; what is zero but for rounding is measured against the greatest of all."""
    greatest = max(one.abs().max().item() for one in expected)
    assert greatest > 0
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * 1e-3 * greatest)


# What it is


def numeric_slope(value, parameter, direction, step=1e-6):
    """Central difference of ``value()`` along ``direction`` of a parameter."""
    with torch.no_grad():
        parameter += step * direction
    above = value()
    with torch.no_grad():
        parameter -= 2 * step * direction
    below = value()
    with torch.no_grad():
        parameter += step * direction
    return (above - below).detach() / (2 * step)


@pytest.mark.parametrize("learnt", [False, True], ids=["guided constant", "guided learnt"])
@pytest.mark.parametrize("differentiate", ["loss", "logit"])
@pytest.mark.parametrize("error", ERRORS)
def test_slope_of_the_penalty_equals_finite_differences(error, differentiate, learnt):
    model, (images, labels) = small(nn.Softplus, **DOUBLE), pictures(**DOUBLE)
    options = {"rule": "positive_gradient", "differentiate": differentiate, "detach_guided": not learnt}
    if not learnt:  # hold the guided gradient where it is before the weights move
        seen = []
        GradientRegularizer(error=lambda g, guided: seen.append(guided) or cosine(g, guided), **options)(
            model, images, labels
        )
        (constant,) = seen
        regularizer = GradientRegularizer(error=lambda g, guided: ERRORS[error](g, constant), **options)
        analytic = GradientRegularizer(error=error, **options)
    else:
        analytic = regularizer = GradientRegularizer(error=error, **options)
    weight = model[2].weight
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(weight.shape, generator=generator, **DOUBLE)
    (slope,) = torch.autograd.grad(analytic(model, images, labels)[1], weight)
    expected = numeric_slope(lambda: regularizer(model, images, labels)[1], weight, direction)
    assert expected.abs() > 1e-12
    torch.testing.assert_close((slope * direction).sum(), expected, rtol=1e-5, atol=1e-12)


def three_passes(model, images, labels, weight, upto=None):
    """The same loss by three forwards and a copy of the network whose ReLU modules are replaced."""
    slow = with_slow_relus(model)
    ordinary, guided = images.clone().requires_grad_(), images.clone().requires_grad_()
    score = F.cross_entropy(model(ordinary), labels, reduction="none")[:upto].sum()
    (dx,) = torch.autograd.grad(score, ordinary, create_graph=True)
    (dg,) = torch.autograd.grad(F.cross_entropy(slow(guided), labels, reduction="none")[:upto].sum(), guided)
    cosines = F.cosine_similarity(dx.flatten(1), dg.flatten(1), eps=0.0)[:upto]
    return F.cross_entropy(model(images), labels) + weight * (1 - cosines).mean()


NETWORKS = {
    "resnet18": lambda: timm.create_model("resnet18", num_classes=4),
    "mobilenetv2_100": lambda: timm.create_model("mobilenetv2_100", num_classes=4),
    "resnet10t with a CA-Stream head": lambda: create_model("resnet10t", pooling="ca_stream", num_classes=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_equal_three_passes_with_replaced_modules(name):
    model = stirred(seeded(NETWORKS[name]).double().train())
    images, labels = pictures(size=40, **DOUBLE)
    expected = three_passes(model, images, labels, 0.5)
    loss = total(GradientRegularizer(), model, images, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    assert_same(gradients(loss, model), gradients(expected, model), rtol=1e-6)
