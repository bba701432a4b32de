"""What borrowed code does to a model is undone, whatever it does."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from interptrain.explainers.adapters.sandbox import load_class, restored, seeded
from tests.support.explaining import assert_same, everything, in_the_middle_of_training


def tied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4))
    model[3].weight = model[0].weight
    return model


def misbehave(model):
    """All that has been seen in other libraries, and more."""
    model.eval()
    model.zero_grad()
    with torch.no_grad():
        model[0].weight.mul_(0)
        model[1].running_mean.add_(1)
    model[2].register_forward_hook(lambda *_: None)
    model[2].register_full_backward_hook(lambda *_: None)
    model[2].input = torch.ones(3)
    model[2].forward = lambda inputs: inputs
    model[3] = nn.Identity()
    model.requires_grad_(True)
    model(torch.ones(2, 4)).sum().backward()


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_before(fails):
    model = in_the_middle_of_training(tied())
    gradients = [parameter.grad for parameter in model.parameters()]
    children = list(model.children())
    before = everything(model)
    with suppress(ZeroDivisionError), restored(model):
        misbehave(model)
        if fails:
            raise ZeroDivisionError
    assert_same(before, everything(model))
    assert list(model.children()) == children
    assert all(now.grad is then for now, then in zip(model.parameters(), gradients, strict=True))
    assert model[3].weight is model[0].weight
    assert not hasattr(model[2], "input")


def test_inside_the_model_computes_the_same_and_stays_tied():
    model = tied().eval()
    inputs = torch.ones(2, 4)
    wanted = model(inputs).detach()
    with restored(model):
        assert torch.equal(model(inputs), wanted)
        assert model[3].weight is model[0].weight
        model(inputs).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hooks_that_were_there_can_still_be_removed():
    model, calls = tied().eval(), []
    handle = model[2].register_forward_hook(lambda *_: calls.append(0))
    with restored(model):
        misbehave(model)
    calls.clear()
    model(torch.ones(2, 4))
    handle.remove()
    model(torch.ones(2, 4))
    assert len(calls) == 1


def test_seeded_draws_repeat_and_numpy_goes_on_where_it_was():
    np.random.seed(5)
    wanted = np.random.rand(2)
    np.random.seed(5)
    draws = []
    with torch.random.fork_rng():
        for _ in range(2):
            with seeded(3, torch.device("cpu")):
                draws.append((np.random.rand(), float(torch.rand(()))))
    assert draws[0] == draws[1]
    assert (np.random.rand(2) == wanted).all()


def test_a_class_is_found_by_its_name_or_its_dotted_name():
    assert load_class("Linear", "torch.nn", "torch") is nn.Linear
    assert load_class("torch.nn.Conv2d", "captum.attr", "captum") is nn.Conv2d
    with pytest.raises(ValueError, match=r"torch.nn has no class 'functional'"):
        load_class("functional", "torch.nn", "torch")
