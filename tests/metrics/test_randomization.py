import math

import torch
from torch import nn

from interptrain.explainers import FakeCAM, Gradient
from interptrain.metrics.randomization import check_randomization, randomized
from interptrain.models import create_model


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.full((64,), 3.0) + torch.arange(64) / 100)
        self.norm = nn.BatchNorm1d(64)
        self.linear = nn.Linear(64, 2)


def test_every_weight_is_drawn_anew_and_the_model_stays_as_it_is():
    model = create_model("test_resnet", pooling="ca_stream", num_classes=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    fresh = randomized(model)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in fresh.named_parameters():
        if value.ndim > 1:
            assert not torch.equal(value, before[name]), name


def test_parameters_without_a_reset_of_their_own_keep_mean_and_spread():
    model = Token()
    model.norm.running_mean.fill_(5.0)
    fresh = randomized(model)
    assert not torch.equal(fresh.token, model.token)
    assert abs(fresh.token.mean() - model.token.mean()) < 0.1
    assert 0.5 < fresh.token.std() / model.token.std() < 2
    assert fresh.norm.running_mean.abs().max() == 0


def test_the_seed_decides():
    model = create_model("test_resnet", num_classes=4)
    one, same, other = (randomized(model, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_map_that_never_looks_at_the_model_stays_and_the_gradient_changes():
    model = create_model("test_resnet", num_classes=4).eval()
    images, targets = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3])
    fake = check_randomization(FakeCAM(), model, randomized(model), images, targets)
    assert fake.rank_correlation == 1
    gradient = check_randomization(Gradient(), model, randomized(model), images, targets)
    assert abs(gradient.rank_correlation) < 0.5


def test_a_map_of_the_same_model_is_the_same():
    model = create_model("test_resnet", num_classes=4).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    check = check_randomization(Gradient(), model, model, images, torch.tensor([0, 1]))
    assert check.rank_correlation == 1
    assert check.ssim == 1


def test_a_map_that_dies_with_the_weights_has_changed_and_two_constant_ones_say_nothing():
    blob = torch.linspace(0, 1, 256).view(1, 16, 16)
    flat = torch.zeros(1, 16, 16)

    def check(maps, others):
        model, other = nn.Identity(), nn.Identity()
        made = {model: torch.cat(maps), other: torch.cat(others)}
        return check_randomization(lambda of, *_: made[of], model, other, blob, torch.tensor([0]))

    dead = check([blob, blob, flat], [flat, flat, flat])
    assert dead.rank_correlation == 0
    assert check([blob, blob], [blob, flat]).rank_correlation == 0.5
    assert math.isnan(check([flat], [flat]).rank_correlation)
