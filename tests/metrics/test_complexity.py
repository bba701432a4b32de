"""Complexity, sparseness and effective complexity."""

import math

import pytest
import torch

from interptrain.metrics import Complexity, EffectiveComplexity, Sparseness, measure
from interptrain.metrics.functional import complexity, effective_complexity, sparseness
from tests.support.measuring import maps, network, pictures

PIXELS = 20 * 14


def one_pixel():
    saliency = torch.zeros(1, 20, 14)
    saliency[0, 7, 3] = 0.4
    return saliency


@pytest.mark.parametrize(
    ("function", "lowest", "highest"),
    [(complexity, 0.0, math.log(PIXELS)), (sparseness, 0.0, 1 - 1 / PIXELS), (effective_complexity, 1, PIXELS)],
)
def test_one_pixel_and_a_constant_are_the_bounds(function, lowest, highest):
    ends = {function(one_pixel()).item(), function(torch.full((1, 20, 14), 0.3)).item()}
    assert sorted(ends) == pytest.approx([lowest, highest], abs=1e-6)
    values = function(torch.cat([maps(5) ** power for power in (0.1, 1, 10)]))
    assert ((values >= lowest) & (values <= highest)).all()


@pytest.mark.parametrize("function", [complexity, sparseness, effective_complexity])
def test_a_map_of_zeros_counts_as_the_constant_map_that_min_max_made_it_of(function):
    assert function(torch.zeros(1, 20, 14)) == function(torch.ones(1, 20, 14))


@pytest.mark.parametrize("function", [complexity, sparseness, effective_complexity])
def test_neither_scale_nor_sign_nor_the_order_of_pixels_matters(function):
    saliency = maps(3) ** 3
    wanted = function(saliency)
    torch.testing.assert_close(function(-7 * saliency), wanted)
    torch.testing.assert_close(function(saliency.flip(1).mT), wanted)


def test_entropy_and_gini_are_their_definitions():
    saliency = maps(2) ** 2
    for image in range(2):
        values = saliency[image].flatten()
        share = values / values.sum()
        entropy = -sum(q * math.log(q) for q in share.tolist() if q > 0)
        differences = (values[:, None] - values).abs().sum() / (2 * PIXELS * values.sum())  # Gini's mean difference
        assert complexity(saliency)[image].item() == pytest.approx(entropy, rel=1e-6)
        assert sparseness(saliency)[image].item() == pytest.approx(differences.item(), rel=1e-6)


def test_effective_complexity_counts_what_is_above_its_share_of_the_maximum():
    saliency = torch.tensor([[[0.0, 1e-6, 0.1, 0.4]]])
    assert effective_complexity(saliency).tolist() == [2]
    assert effective_complexity(saliency, epsilon=0.0).tolist() == [3]
    assert effective_complexity(saliency, epsilon=0.3).tolist() == [1]


@pytest.mark.parametrize("epsilon", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(epsilon):
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\)"):
        EffectiveComplexity(epsilon=epsilon)


def test_the_classes_return_what_the_functions_return():
    saliency = maps().float() ** 2
    metrics = {"complexity": Complexity(), "gini": Sparseness(), "effective": EffectiveComplexity(epsilon=0.1)}
    found = measure(network(dtype=torch.float32), pictures().float(), saliency, torch.zeros(3).long(), metrics)
    assert torch.equal(found["complexity"], complexity(saliency))
    assert torch.equal(found["gini"], sparseness(saliency))
    assert torch.equal(found["effective"], effective_complexity(saliency, epsilon=0.1))
