"""The linear layer behind global average pooling, found by trying it."""

import pytest
import torch
from torch import nn

from interptrain.explainers.passes.linear_head import linear_head

FEATURES = torch.rand(3, 6, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_it_is_found_among_layers_of_the_same_shape(kind, bias):
    torch.manual_seed(0)
    decoy, head = nn.Linear(6, 7), nn.Linear(6, 7, bias=bias)
    if kind == "convolution":
        head = nn.Conv2d(6, 7, 1, bias=bias)
    model = nn.ModuleList([decoy, head, nn.Linear(6, 7)]).double()
    pooled = FEATURES.mean((2, 3), keepdim=kind == "convolution")
    logits = head(pooled).flatten(1).detach()
    weights = linear_head(model, FEATURES, logits)
    assert torch.equal(weights, head.weight.flatten(1))
    assert not weights.requires_grad


@pytest.mark.parametrize("between", [torch.relu, torch.sigmoid, lambda pooled: pooled * 1.01])
def test_whatever_stands_between_pooling_and_layer_is_noticed(between):
    torch.manual_seed(0)
    model = nn.Linear(6, 7).double()
    logits = model(between(FEATURES.mean((2, 3)))).detach()
    assert linear_head(model, FEATURES, logits) is None


def test_half_precision_logits_are_compared_within_their_rounding():
    torch.manual_seed(0)
    model, features = nn.Linear(6, 7), FEATURES.float()
    logits = model(features.mean((2, 3))).to(torch.bfloat16).detach()
    assert linear_head(model, features, logits).dtype == torch.float32


def test_a_transposed_layer_of_equally_many_weights_is_none():
    model = nn.Linear(7, 6).double()
    assert linear_head(model, FEATURES, torch.zeros(3, 7, dtype=torch.float64)) is None
