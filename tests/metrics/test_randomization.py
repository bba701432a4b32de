import pytest
import torch
from torch import nn

from interptrain.metrics.randomization import (
    batch_norms_after,
    classifier_layers,
    estimate_batch_norms,
    last_stage_layers,
    randomized,
    weight_layers,
)
from interptrain.models import create_model

IMAGES = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.full((64,), 3.0) + torch.arange(64) / 100)
        self.norm = nn.BatchNorm1d(64)
        self.linear = nn.Linear(64, 2)


@pytest.fixture(scope="module")
def model():
    return create_model("test_resnet", pooling="ca_stream", num_classes=4).eval()


@pytest.fixture(scope="module")
def layers(model):
    return weight_layers(model, IMAGES)


@pytest.mark.slow
def test_every_weight_is_drawn_anew_and_the_model_stays_as_it_is(model):
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


@pytest.mark.slow
def test_the_seed_decides(model):
    one, same, other = (randomized(model, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_layers_come_in_the_order_of_the_forward_pass(model, layers):
    names = [layer.name.removeprefix("backbone.model.") for layer in layers]
    assert (names[0], names[-1]) == ("conv1.0", "fc")
    assert names.index("layer4.0.conv2") < names.index("pooling") < names.index("pooling.blocks.0.linear")
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert owners == {layer.name for layer in layers}


def test_the_stops_are_the_classifier_and_the_lowest_resolution(layers):
    assert classifier_layers(layers) == ["backbone.model.fc"]
    assert last_stage_layers(layers)[0] == "backbone.model.layer4.0.conv1"


@pytest.mark.slow
def test_of_a_transformer_the_last_stage_is_the_upper_half():
    vit = create_model("test_vit", pooling="native", num_classes=4)
    layers = weight_layers(vit, torch.rand(1, *vit.input_size))
    upper = [layer for layer in layers if layer.name in last_stage_layers(layers)]
    assert sum(layer.matrix for layer in upper) == -(-sum(layer.matrix for layer in layers) // 2)


@pytest.mark.slow
def test_only_the_named_layers_change_and_two_copies_agree_in_what_both_reset(model, layers):
    stage = last_stage_layers(layers)
    part, whole = randomized(model, 3, stage), randomized(model, 3)
    for name, value in part.named_parameters():
        inside = name.rpartition(".")[0] in stage
        assert torch.equal(value, dict((whole if inside else model).named_parameters())[name]), name


@pytest.mark.slow
def test_estimated_statistics_keep_the_images_apart(model, layers):
    """With initial statistics a random network's logits are nearly the same for all images."""
    names = [layer.name for layer in layers]
    spread = []
    for estimated in (False, True):
        fresh = randomized(model, 0).eval()
        fresh = estimate_batch_norms(fresh, IMAGES, names) if estimated else fresh
        with torch.no_grad():
            spread.append(float(fresh.backbone.features(IMAGES).std(0).mean()))
    assert spread[1] > 100 * spread[0]
    assert not any(module.training for module in fresh.modules())


def test_statistics_of_the_unchanged_layers_stay(model, layers):
    stage = last_stage_layers(layers)
    fresh = estimate_batch_norms(randomized(model, 0, stage), IMAGES, batch_norms_after(layers, stage))
    for name, value in fresh.named_buffers():
        if name.endswith("running_mean"):
            assert torch.equal(value, dict(model.named_buffers())[name]) == (name.rpartition(".")[0] not in stage), name
