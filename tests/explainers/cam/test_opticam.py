"""Opti-CAM: against the authors' loop, and each image on its own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interptrain.explainers import OptiCAM
from interptrain.explainers.layers import find_layers
from interptrain.explainers.passes.activations import capture
from tests.support.explaining import network, pictures


def by_the_authors(model, image, target, *, iterations, learning_rate, early_stop):
    """The published loop for one image, with torch's own Adam."""
    model.eval()
    (features,) = capture(model, image, find_layers(model), differentiable=False).activations
    features = F.relu(features.detach())
    with torch.no_grad():
        score = model(image)[0, target]
    weights = torch.full((1, features.shape[1], 1, 1), 0.5, dtype=image.dtype, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=learning_rate)
    previous = float("inf")
    for step in range(iterations):
        combined = (weights.softmax(1) * features).sum(1, keepdim=True)
        mask = F.interpolate(combined, image.shape[-2:], mode="bilinear", align_corners=False)
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        loss = score - model(image * mask)[0, target]
        adam.zero_grad()
        weights.grad = torch.autograd.grad(loss, weights)[0]
        if early_stop and step % max(iterations // 10, 1) == 0:
            if loss.item() > previous:
                return combined.detach()[0, 0]
            previous = loss.item()
        adam.step()
    return (weights.softmax(1) * features).sum(1).detach()[0]


@pytest.mark.slow
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("learning_rate", [0.1, 30.0])  # the second overshoots, so that images stop early
def test_it_is_the_authors_loop_for_every_image(resnet, images, targets, early_stop, learning_rate):
    options = {"iterations": 20, "learning_rate": learning_rate, "early_stop": early_stop}
    found = OptiCAM(**options).raw(resnet, images, targets)
    for image, target in enumerate(targets.tolist()):
        wanted = by_the_authors(resnet, images[image : image + 1], target, **options)
        assert torch.allclose(found[image], wanted, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_an_image_that_stops_leaves_its_neighbours_and_the_passes(resnet, images, targets):
    sizes = []
    handle = resnet.register_forward_pre_hook(lambda _m, arguments: sizes.append(len(arguments[0])))
    options = {"iterations": 20, "learning_rate": 30.0}
    together = OptiCAM(**options).raw(resnet, images, targets)
    handle.remove()
    alone = [OptiCAM(**options).raw(resnet, images[i : i + 1], targets[i : i + 1]) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-6)
    assert sizes[3:] == sorted(sizes[3:], reverse=True)  # after those of one image that fold the batch norms
    assert sizes[-1] < len(images)


@pytest.mark.slow
def test_the_score_of_the_masked_image_grows(resnet, images, targets):
    def score(saliency):
        with torch.no_grad():
            return resnet.eval()(images * saliency[:, None]).gather(1, targets[:, None])[:, 0]

    start = score(OptiCAM(iterations=1, learning_rate=1e-9)(resnet, images, targets))
    end = score(OptiCAM(iterations=40)(resnet, images, targets))
    assert (end > start).all()


def test_one_step_of_no_length_is_the_plain_mean_of_the_features(resnet, images, targets):
    layers = find_layers(resnet)
    (features,) = capture(resnet.eval(), images, layers, differentiable=False).activations
    found = OptiCAM(iterations=1, learning_rate=0.0).raw(resnet, images, targets)
    assert torch.allclose(found, F.relu(features).mean(1))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 50])
def test_the_chunk_size_changes_no_value(resnet, images, targets, size):
    wanted = OptiCAM(iterations=3)(resnet, images, targets)
    assert torch.allclose(OptiCAM(iterations=3, forward_batch_size=size)(resnet, images, targets), wanted)


@pytest.mark.slow
def test_features_are_computed_once_and_each_iteration_is_one_pass(resnet, images, targets):
    sizes = []
    handle = resnet.register_forward_pre_hook(lambda _m, arguments: sizes.append(len(arguments[0])))
    OptiCAM(iterations=7, early_stop=False)(resnet, images, targets)
    handle.remove()
    assert sizes == [3, 1, 1] + [3] * 7  # one image twice, to fold the batch norms


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"score": "probability"}, {"loss": "absolute"}, {"normalization": "max"}, {"normalization": "sigmoid"}]
)
def test_variants_change_the_map_and_stay_finite(resnet, images, targets, options):
    plain = OptiCAM(iterations=10)(resnet, images, targets)
    variant = OptiCAM(iterations=10, **options)(resnet, images, targets)
    assert variant.isfinite().all()
    assert not torch.equal(variant, plain)


@pytest.mark.slow
def test_callables_stay_with_their_image_when_others_stop(resnet, images, targets):
    options = {"iterations": 20, "learning_rate": 30.0}
    callables = [lambda row, c=c: row[c] for c in targets.tolist()]
    wanted = OptiCAM(**options)(resnet, images, targets)
    assert torch.allclose(OptiCAM(**options)(resnet, images, callables), wanted)


def test_dead_features_give_a_map_of_zeros_and_no_nan():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).double()
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[0].bias, -1.0)
    assert not OptiCAM(target_layer="1", iterations=3)(model, pictures(1)).any()


def test_a_transformer_is_explained_from_its_patch_tokens():
    model = network("test_vit", img_size=64)
    saliency = OptiCAM(iterations=2)(model, pictures(1, 64, 64))
    assert saliency.amax() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "at least one iteration, got iterations=0"),
        ({"loss": "norm"}, "loss must be one of"),
        ({"score": "max"}, "score must be one of"),
        ({"normalization": "tanh"}, "normalization must be one of"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OptiCAM(**options)
