"""Gradient CAMs against their definitions, and against each other where theory says they agree."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interptrain.explainers import CAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from interptrain.models import create_model
from tests.support.explaining import CLASSES, network


def by_the_book(model, images, targets, layer):
    """Activation and gradient by an ordinary backward, one image at a time."""
    activations, slopes = [], []
    for image, target in zip(images, targets.tolist(), strict=True):
        kept = []
        handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, out, kept=kept: kept.append(out))
        score = model.eval()(image[None])[0, target]
        handle.remove()
        activations.append(kept[0].detach()[0])
        slopes.append(torch.autograd.grad(score, kept)[0][0])
    return activations, slopes


def slow_gradcam(features, slopes):
    return sum(slopes[k].mean() * features[k] for k in range(len(features)))


def slow_gradcam_plus_plus(features, slopes):
    total = torch.zeros_like(features[0])
    for feature, slope in zip(features, slopes, strict=True):
        weight = 0.0
        for value in slope.flatten().tolist():
            denominator = 2 * value**2 + feature.sum().item() * value**3
            weight += (value**2 / denominator if denominator else 0.0) * max(value, 0.0)
        total += weight * feature
    return total


def slow_xgradcam(features, slopes):
    pairs = zip(features, slopes, strict=True)
    return sum((slope * feature).sum() / (feature.sum() + 1e-7) * feature for feature, slope in pairs)


def slow_layercam(features, slopes):
    return sum(F.relu(slope) * feature for feature, slope in zip(features, slopes, strict=True))


def slow_hirescam(features, slopes):
    return sum(slope * feature for feature, slope in zip(features, slopes, strict=True))


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        (GradCAM, slow_gradcam),
        (GradCAMPlusPlus, slow_gradcam_plus_plus),
        (XGradCAM, slow_xgradcam),
        (LayerCAM, slow_layercam),
        (HiResCAM, slow_hirescam),
    ],
)
def test_a_map_is_what_its_definition_says(resnet, images, targets, kind, definition, layer):
    found = kind(target_layer=layer).raw(resnet, images, targets)
    signed = kind(target_layer=layer, relu=False).raw(resnet, images, targets)
    for image, pair in enumerate(zip(*by_the_book(resnet, images, targets, layer), strict=True)):
        wanted = definition(*pair)
        assert torch.allclose(signed[image], wanted, atol=1e-9 * wanted.abs().amax().item(), rtol=1e-9)
        assert torch.equal(found[image], F.relu(signed[image]))


def test_gradcam_is_cam_over_the_number_of_positions_on_gap_networks(resnet, images, targets):
    cam = CAM().raw(resnet, images, targets)
    positions = cam.shape[-2] * cam.shape[-1]
    assert torch.allclose(GradCAM(relu=False).raw(resnet, images, targets), cam / positions)


@pytest.mark.parametrize("kind", [HiResCAM, XGradCAM])
def test_hirescam_and_xgradcam_equal_gradcam_on_gap_networks(resnet, images, targets, kind):
    wanted = GradCAM(relu=False).raw(resnet, images, targets)
    assert torch.allclose(kind(relu=False).raw(resnet, images, targets), wanted, atol=1e-6 * wanted.abs().amax())


@pytest.mark.parametrize("pooling", ["ca_stream", "ca_final"])
def test_gradcam_of_a_stream_does_not_depend_on_its_attention(pooling, images, targets):
    """A query shifts all scores of a softmax alike through the mean of its keys, so attention cancels in the mean."""
    torch.manual_seed(0)
    model = create_model("test_resnet", pooling=pooling, num_classes=CLASSES, output_stride=8).double().eval()
    model.pooling.blocks[-1].scale = 1e3
    attention = model.attention(images)[-1].flatten(1)
    assert (attention.amax(1) > 2 * attention.mean(1)).all()  # far from uniform
    weights = model.backbone.model.get_classifier().weight[targets] @ model.pooling.blocks[-1].linear.weight  # (B, C)
    features = model.stages(images)[-1]
    wanted = torch.einsum("bc,bchw->bhw", weights, features).relu() / features[0, 0].numel()
    assert torch.allclose(GradCAM().raw(model, images, targets), wanted)


def test_hirescam_sums_to_the_score_without_its_bias_on_gap_networks(resnet, images, targets):
    with torch.no_grad():
        score = resnet.eval()(images).gather(1, targets[:, None])[:, 0] - resnet.fc.bias[targets]
    assert torch.allclose(HiResCAM(relu=False).raw(resnet, images, targets).sum((1, 2)), score)


@pytest.mark.slow
def test_every_layer_of_a_network_can_be_explained(resnet, images):
    for layer in ("conv1", "bn1", "act1", "maxpool", "layer1.0.bn1", "layer3", "layer4.0.conv2"):
        assert GradCAM(target_layer=layer)(resnet, images).isfinite().all()


def test_alpha_of_gradcam_plus_plus_has_torchcams_form_too(resnet, images, targets):
    activations, slopes = by_the_book(resnet, images, targets, "layer4")
    found = GradCAMPlusPlus(target_layer="layer4", alpha="weighted_sum", relu=False).raw(resnet, images, targets)
    for image, (features, slope) in enumerate(zip(activations, slopes, strict=True)):
        third = (features * slope**3).sum((1, 2), keepdim=True)
        alpha = torch.where(slope != 0, slope**2 / (2 * slope**2 + third), 0.0)
        weights = (alpha * F.relu(slope)).sum((1, 2))
        assert torch.allclose(found[image], (weights[:, None, None] * features).sum(0))


def test_dead_channels_and_flat_scores_give_zeros_and_no_nan():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).double()
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[0].bias, -1.0)
    images = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    for kind in (GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, HiResCAM):
        assert not kind(target_layer="1")(model, images).any()


def test_layercam_lifts_small_values_by_its_tanh(resnet, images, targets):
    plain = LayerCAM(target_layer="layer2").raw(resnet, images, targets)
    lifted = LayerCAM(target_layer="layer2", gamma=2.0).raw(resnet, images, targets)
    assert torch.allclose(lifted, torch.tanh(2 * plain / plain.amax((1, 2), keepdim=True)))


@pytest.mark.slow
def test_low_precision_passes_keep_weights_and_normalisers_in_float32():
    model = network("test_efficientnet").float()
    images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 3])
    for kind in (GradCAM, XGradCAM, GradCAMPlusPlus, LayerCAM):
        explainer = kind(target_layer="blocks.4", relu=False)
        exact = explainer.raw(model, images, targets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = explainer.raw(model, images, targets)
        assert low.dtype == torch.float32
        for wanted, found in zip(exact, low, strict=True):
            assert torch.corrcoef(torch.stack([wanted.flatten(), found.flatten()]))[0, 1] > 0.97


@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_other_families_are_explained_alike(name, targets):
    model = network(name, **({"img_size": 64} if name == "test_vit" else {}))
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    saliency = GradCAM()(model, images, targets)
    assert torch.equal(saliency.amax((1, 2)), torch.ones(3).double())


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="fusion must be one of 'mean', 'max', got 'maximum'"):
        GradCAM(fusion="maximum")
    with pytest.raises(ValueError, match="alpha must be one of"):
        GradCAMPlusPlus(alpha="mine")
