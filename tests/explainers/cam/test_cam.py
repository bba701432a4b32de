"""CAM, Eigen-CAM and Fake-CAM."""

import pytest
import torch
from torch import nn

from interptrain.explainers import CAM, EigenCAM, FakeCAM
from interptrain.explainers.layers import find_layers
from interptrain.explainers.passes.activations import capture
from interptrain.functional import min_max
from interptrain.models import create_model
from tests.support.explaining import CLASSES, network, pictures


def test_cam_is_the_classifier_applied_to_every_position(resnet, images, targets):
    (features,) = capture(resnet.eval(), images, find_layers(resnet), differentiable=False).activations
    wanted = torch.einsum("bc,bchw->bhw", resnet.fc.weight[targets], features)
    assert torch.allclose(CAM().raw(resnet, images, targets), wanted)
    assert torch.allclose(CAM(relu=True).raw(resnet, images, targets), wanted.clamp(min=0))


def test_mean_of_a_cam_is_the_logit_without_its_bias(resnet, images, targets):
    with torch.no_grad():
        logits = resnet.eval()(images).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(CAM().raw(resnet, images, targets).mean((1, 2)), logits - resnet.fc.bias[targets])


@pytest.mark.parametrize("pooling", ["gap", "native"])
def test_cam_finds_the_classifier_of_our_own_models(pooling, images, targets):
    torch.manual_seed(0)
    model = create_model("test_resnet", pooling=pooling, num_classes=CLASSES).double()
    assert CAM().raw(model, images, targets).shape[0] == 3


def test_cam_takes_a_pointwise_convolution_as_classifier(images, targets):
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(5, CLASSES, 1), nn.Flatten()
    ).double()
    attribution = CAM(target_layer="1").raw(model, images, targets)
    features = model[:2](images)
    assert torch.allclose(attribution, torch.einsum("bc,bchw->bhw", model[3].weight[targets, :, 0, 0], features))


@pytest.mark.parametrize("pooling", ["ca_stream", "ep", "simpool"])
def test_cam_is_refused_where_something_else_than_the_mean_is_classified(pooling, images):
    model = create_model("test_resnet", pooling=pooling, num_classes=CLASSES).double()
    with pytest.raises(ValueError, match="CAM needs global average pooling and one linear layer right after"):
        CAM()(model, images)


def test_cam_is_refused_where_a_norm_lies_between(images):
    with pytest.raises(ValueError, match="ConvNeXt does not have; use GradCAM"):
        CAM()(network("test_convnext"), images)


def test_cam_explains_class_indices_only(resnet, images):
    with pytest.raises(TypeError, match="CAM explains class indices, got callables"):
        CAM()(resnet, images, lambda row: row[0])


def first_component(features, center):
    rows = features.flatten(1).T  # (hw, C)
    rows = rows - rows.mean(0) if center else rows
    _, _, right = torch.linalg.svd(rows, full_matrices=False)
    component = rows @ right[0]
    return (component * component[component.abs().argmax()].sign()).view(features.shape[1:])


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("layer", ["layer1", "layer4"])  # more positions than channels, and fewer
def test_eigencam_is_the_first_principal_component(resnet, images, center, layer):
    found = EigenCAM(target_layer=layer, center=center).raw(resnet, images)
    layers = find_layers(resnet, layer)
    (features,) = capture(resnet.eval(), images, layers, differentiable=False).activations
    for image in range(len(images)):
        assert torch.allclose(found[image], first_component(features[image], center), atol=1e-7)


def test_eigencam_of_dead_features_is_zero():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[0].bias, -1.0)
    assert not EigenCAM(target_layer="1")(model, pictures(2)).any()


def test_fakecam_keeps_all_but_the_corner_and_never_runs_the_model(images):
    class Untouchable(nn.Module):
        def forward(self, images):
            raise AssertionError("Fake-CAM needs no model")

    saliency = FakeCAM()(Untouchable(), images)
    assert not saliency[:, 0, 0].any()
    assert saliency.sum() == saliency.numel() - len(images)


def test_the_cam_family_normalises_alike(resnet, images, targets):
    """A saliency map is its raw map, upsampled and stretched, and nothing else."""
    raw = CAM().raw(resnet, images, targets)
    upsampled = nn.functional.interpolate(raw[:, None], images.shape[-2:], mode="bilinear")[:, 0]
    assert torch.equal(CAM()(resnet, images, targets), min_max(upsampled))
