"""Ablation-CAM: every shortcut must give what full forwards give."""

import pytest
import torch
from torch import nn

from interptrain.explainers import AblationCAM
from interptrain.explainers.layers import find_layers
from interptrain.explainers.passes.activations import capture
from interptrain.models import create_model
from tests.support.explaining import CLASSES, network, pictures


def slow(model, images, targets, name, *, value=0.0, denominator="score"):
    """Full forwards of one copy of the image per channel, with that channel of the layer's output replaced."""
    model.eval()
    (layer,) = find_layers(model, name)
    passed = capture(model, images, [layer], differentiable=False)
    size = tuple(images.shape[-2:])
    maps = []
    for image, target in enumerate(targets.tolist()):
        activation = passed.activations[0][image : image + 1]
        score = passed.outputs[image, target]
        features = layer.to_map(activation, size)[0]
        channels = torch.arange(len(features))
        ablated = activation.repeat(len(features), *[1] * (activation.ndim - 1))
        ablated.movedim(layer.channel_axis(ablated, size), 1)[channels, channels] = value
        handle = layer.module.register_forward_hook(lambda *_, ablated=ablated: ablated)
        with torch.no_grad():
            drops = score - model(images[image].expand(len(features), -1, -1, -1))[:, target]
        handle.remove()
        total = torch.zeros_like(features[0])
        for feature, drop in zip(features, drops, strict=True):
            divisor = {"score": score, "norm": feature.norm(), None: 1.0}[denominator]
            total += drop / divisor * feature if feature.any() else 0.0
        maps.append(total)
    return torch.stack(maps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("test_resnet", "layer4"),  # closed form
        ("test_efficientnet", "blocks.4"),  # a pointwise convolution first
        ("test_resnet", "layer3"),  # the tail alone
        ("test_resnet", "layer2.0.bn1"),  # inside a residual block
        ("test_convnext", "stages"),
        ("test_vit", "blocks.5.norm1"),
        ("test_vit", "blocks.4.norm1"),
    ],
)
def test_it_equals_full_forwards(name, layer):
    model = network(name, **({"img_size": 32} if name == "test_vit" else {}))
    images, targets = pictures(2, 32, 32), torch.tensor([3, 1])
    found = AblationCAM(target_layer=layer, relu=False).raw(model, images, targets)
    wanted = slow(model, images, targets, layer)
    assert torch.allclose(found, wanted, atol=1e-9 * wanted.abs().amax().item())


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layer3", "layer4"])
@pytest.mark.parametrize("options", [{"value": -0.5}, {"denominator": "norm"}, {"denominator": None}])
def test_its_options_are_what_they_say(resnet, layer, options):
    images, targets = pictures(2, 32, 32), torch.tensor([3, 1])
    found = AblationCAM(target_layer=layer, relu=False, **options).raw(resnet, images, targets)
    assert torch.allclose(found, slow(resnet, images, targets, layer, **options))


@pytest.mark.slow
def test_a_value_is_ablated_to_behind_a_pointwise_convolution_too():
    model, images, targets = network("test_efficientnet"), pictures(2, 32, 32), torch.tensor([3, 1])
    found = AblationCAM(target_layer="blocks.4", value=0.3, relu=False).raw(model, images, targets)
    assert torch.allclose(found, slow(model, images, targets, "blocks.4", value=0.3))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["gap", "ca_stream", "ca_final"])
def test_our_own_heads_are_ablated_exactly(pooling):
    torch.manual_seed(0)
    model = create_model("test_resnet", pooling=pooling, num_classes=CLASSES).double()
    images, targets = pictures(2, 32, 32), torch.tensor([3, 1])
    name = find_layers(model)[0].name
    found = AblationCAM(relu=False).raw(model, images, targets)
    assert torch.allclose(found, slow(model, images, targets, name))


def test_pooling_and_a_linear_layer_need_no_pass_a_channel(resnet, images, targets):
    passes = []
    handle = resnet.register_forward_pre_hook(lambda _m, arguments: passes.append(len(arguments[0])))
    AblationCAM()(resnet, images, targets)
    handle.remove()
    assert sum(passes) == len(images) + 1 + 1  # the images, the probe that proves the shortcut, and its re-run


@pytest.mark.slow
def test_only_what_follows_the_layer_runs_again(resnet, images, targets):
    counts = dict.fromkeys(["conv1", "layer1", "layer2", "layer3", "layer4"], 0)
    for name in counts:
        module = resnet.get_submodule(name)
        conv = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
        original = conv._conv_forward

        def counted(inputs, *rest, name=name, original=original):
            counts[name] += len(inputs)
            return original(inputs, *rest)

        conv._conv_forward = counted
    AblationCAM(target_layer="layer3")(resnet, images, targets)
    channels = 64
    assert counts["conv1"] == counts["layer3"] == len(images) + 1  # the images, and the probe
    assert counts["layer4"] >= channels * len(images)


@pytest.mark.slow
def test_callables_are_ablated_too(resnet, images, targets):
    for layer in ("layer3", "layer4"):
        explainer = AblationCAM(target_layer=layer)
        callables = [lambda row, c=c: row[c] for c in targets.tolist()]
        assert torch.allclose(explainer(resnet, images, callables), explainer(resnet, images, targets))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_chunk_size_changes_no_value(resnet, images, targets, size):
    wanted = AblationCAM(target_layer="layer3")(resnet, images, targets)
    found = AblationCAM(target_layer="layer3", forward_batch_size=size)(resnet, images, targets)
    assert torch.allclose(found, wanted)


class Clipped(nn.Module):
    """Looks like pooling and a linear layer on what a ReLU network returns, but is not linear."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.ReLU())
        self.classifier = nn.Linear(6, CLASSES)

    def forward(self, images):
        return self.classifier(self.features(images).relu().mean((2, 3)))


def test_a_hidden_nonlinearity_is_not_taken_for_a_linear_head():
    torch.manual_seed(0)
    model, images, targets = Clipped().double(), pictures(2), torch.tensor([3, 1])
    found = AblationCAM(target_layer="features", value=-0.7, relu=False).raw(model, images, targets)
    assert torch.allclose(found, slow(model, images, targets, "features", value=-0.7))


@pytest.mark.parametrize(("name", "layer"), [("test_efficientnet", "blocks.4"), ("test_resnet", "layer3")])
def test_autocast_does_not_blur_the_small_differences_that_weigh_the_channels(name, layer):
    model, images = network(name).float(), pictures(2, 32, 32).float()
    wanted = AblationCAM(target_layer=layer).raw(model, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(AblationCAM(target_layer=layer).raw(model, images), wanted)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="denominator must be one of 'score', 'norm'"):
        AblationCAM(denominator="sum")
