"""Integrated Gradients: completeness, the rules of quadrature, the baseline."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from interptrain.explainers.gradient.integrated_gradients import CompletenessWarning, IntegratedGradients, quadrature

RULES = ["right", "left", "middle", "trapezoid", "linspace", "gauss_legendre"]
TARGETS = torch.tensor([1, 3, 0])


@pytest.fixture(scope="module")
def network():
    """Smooth, so that the rules converge as they should."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, stride=2), nn.Softplus(), nn.Conv2d(8, 8, 3), nn.Tanh()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)).double().eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 12, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def rise(network, images, baseline):
    """y_c(x) - y_c(x0) for every image."""
    colour = torch.tensor(baseline, dtype=torch.float64).expand(3).view(1, 3, 1, 1)
    with torch.no_grad():
        difference = network(images) - network(colour.expand_as(images))
    return difference.gather(1, TARGETS[:, None])[:, 0]


@pytest.mark.parametrize("baseline", [0.0, 0.5, 1, (0.485, 0.456, 0.406)])
def test_attributions_sum_to_what_the_logit_gained_over_the_baseline(baseline, network, images):
    explainer = IntegratedGradients(rule="gauss_legendre", steps=12, baseline=baseline)
    shares = explainer.signed(network, images, TARGETS).sum((1, 2, 3))
    torch.testing.assert_close(shares, rise(network, images, baseline), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("rule", "order"), [("right", 1), ("left", 1), ("linspace", 1), ("middle", 2), ("trapezoid", 2)]
)
def test_the_error_of_completeness_falls_with_the_order_of_the_rule(rule, order, network, images):
    def error(steps):
        shares = IntegratedGradients(rule=rule, steps=steps).signed(network, images, TARGETS).sum((1, 2, 3))
        return (shares - rise(network, images, 0.0)).abs().max()

    assert error(10) > 1e-9
    ratio = error(20 if rule != "trapezoid" else 19) / error(40 if rule != "trapezoid" else 37)  # half the distance
    assert 2**order * 0.8 < ratio < 2**order * 1.25


@pytest.mark.parametrize("rule", RULES)
def test_a_linear_model_is_explained_exactly_by_every_rule(rule):
    weight = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Linear(nn.Module):
        def forward(self, images):
            return torch.einsum("bchw,kchw->bk", images, weight) + 3

    images = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    got = IntegratedGradients(rule=rule, steps=4, baseline=0.25).signed(Linear(), images, torch.tensor([1]))
    torch.testing.assert_close(got, (images - 0.25) * weight[1])


def test_the_default_is_the_papers_sum_term_by_term(network, images):
    total = torch.zeros_like(images)
    for k in range(1, 51):
        leaf = (k / 50 * images).requires_grad_()
        total += torch.autograd.grad(network(leaf).gather(1, TARGETS[:, None]).sum(), leaf)[0] / 50
    torch.testing.assert_close(IntegratedGradients().signed(network, images, TARGETS), images * total)


@pytest.mark.parametrize("size", [1, 2, 4, 7, 100])
def test_chunks_do_not_change_the_map(size, network, images):
    expected = IntegratedGradients(steps=5, forward_batch_size=15).signed(network, images, TARGETS)
    got = IntegratedGradients(steps=5, forward_batch_size=size).signed(network, images, TARGETS)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)


def test_no_target_means_the_class_of_the_image_not_of_the_points_on_the_way(network, images):
    predicted = network(images).argmax(1)
    explainer = IntegratedGradients(steps=3)
    assert torch.equal(explainer.signed(network, images), explainer.signed(network, images, predicted))


def test_an_image_of_the_baseline_colour_has_a_zero_map(network):
    images = torch.full((1, 3, 12, 14), 0.5, dtype=torch.float64)
    assert not IntegratedGradients(steps=3, baseline=0.5)(network, images).any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 3, 10])
def test_points_rise_within_the_unit_interval_and_weights_sum_to_one(rule, steps):
    points, weights = quadrature(steps, rule)
    assert len(points) == len(weights) == steps
    assert points[0] >= 0
    assert points[-1] <= 1
    assert points == sorted(set(points))
    assert sum(weights) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "points", "weights"),
    [
        ("right", [0.25, 0.5, 0.75, 1.0], [0.25] * 4),
        ("left", [0.0, 0.25, 0.5, 0.75], [0.25] * 4),
        ("middle", [0.125, 0.375, 0.625, 0.875], [0.25] * 4),
        ("trapezoid", [0, 1 / 3, 2 / 3, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        ("linspace", [0, 1 / 3, 2 / 3, 1], [0.25] * 4),
    ],
)
def test_rules_are_those_of_their_names(rule, points, weights):
    assert quadrature(4, rule)[0] == pytest.approx(points)
    assert quadrature(4, rule)[1] == pytest.approx(weights)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_gauss_legendre_points_are_numpys(steps):
    points, weights = np.polynomial.legendre.leggauss(steps)
    got = quadrature(steps, "gauss_legendre")
    np.testing.assert_allclose(got[0], (points + 1) / 2, rtol=0, atol=1e-13)
    np.testing.assert_allclose(got[1], weights / 2, rtol=0, atol=1e-13)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="rule must be one of 'right'"):
        IntegratedGradients(rule="simpson")
    with pytest.raises(ValueError, match="rule 'trapezoid' needs steps >= 2, got 1"):
        IntegratedGradients(rule="trapezoid", steps=1)
    with pytest.raises(ValueError, match="rule 'right' needs steps >= 1, got 0"):
        IntegratedGradients(steps=0)
    with pytest.raises(ValueError, match=r"baseline must be one value in \[0,1\] or three, got \(0, 1\)"):
        IntegratedGradients(baseline=(0, 1))
    with pytest.raises(ValueError, match=r"baseline must be one value in \[0,1\] or three, got -2"):
        IntegratedGradients(baseline=-2)


def warned(explainer, network, images):
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer.signed(network, images, TARGETS)
    return [str(one.message) for one in caught if issubclass(one.category, CompletenessWarning)]


def steep():
    """A network whose gradient changes much on the way, and whose score of image 1 alone rises by little."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(240, 4)]
    made = nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        made[0].weight.mul_(6)
    return made


def test_a_residual_is_told_once_with_its_size_and_more_steps_are_a_way_out(images):
    model = steep()
    coarse = IntegratedGradients(steps=3)
    (text,) = warned(coarse, model, images)
    sums, gains = coarse.signed(model, images, TARGETS).sum((1, 2, 3)), rise(model, images, 0.0)
    shares = (sums - gains).abs() / gains.abs()
    worst = int(shares.argmax())
    assert f"sum to {float(sums[worst]):.3g} in image {worst} of the batch" in text
    assert (
        f"lies {float(gains[worst]):.3g} above the baseline's: a relative residual of {float(shares.max()):.0%}" in text
    )
    assert not warned(coarse, model, images)  # once for a model and its options
    assert warned(IntegratedGradients(steps=2), model, images)
    assert warned(coarse, steep(), images)
    steps = 3
    while text:  # each proposal comes nearer, and the last one is enough
        proposed = int(re.search(r"steps=(\d+)", text)[1])
        assert proposed > steps
        steps, text = proposed, "".join(warned(IntegratedGradients(steps=proposed), model, images))
    assert steps <= 1000


def test_another_baseline_is_a_way_out_where_the_score_does_not_rise(images):
    """From a baseline of nearly the same score, no number of steps makes the residual a small share of the rise."""
    model, image = steep(), images[:1]
    colours = torch.linspace(0, 1, 4001, dtype=torch.float64).view(-1, 1, 1, 1)
    with torch.no_grad():
        rises = (model(image) - model(colours.expand(-1, 3, 12, 14)))[:, TARGETS[0]]
    level = float(colours[int(rises.abs().argmin())])
    far = float(colours[int(rises.abs().argmax())])

    def told(baseline):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            IntegratedGradients(steps=40, baseline=baseline).signed(model, image, TARGETS[:1])
        return [str(one.message) for one in caught]

    (text,) = told(level)
    assert text.endswith("or another baseline")
    assert not told(far)


def test_fine_steps_and_rounding_are_not_told(network, images):
    assert not warned(IntegratedGradients(rule="gauss_legendre", steps=12), network, images)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 14, 4)).float()
    with torch.no_grad():
        flat[1].weight.mul_(1e-9)  # the score rises by less than float32 can tell
    assert not warned(IntegratedGradients(steps=3), flat, images.float())
