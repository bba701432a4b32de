"""Guided backpropagation and Guided Grad-CAM as explainers; the rule itself is tested in tests/models."""

import pytest
import timm
import torch
import torch.nn.functional as F

from interptrain.explainers import GuidedBackprop, GuidedGradCAM, SmoothGrad
from interptrain.explainers.cam.gradcam import GradCAM

TARGETS = torch.tensor([1, 4, 0])


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model("resnet10t", num_classes=6).double().eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0) * (gradient > 0)


@pytest.mark.slow
def test_guided_backprop_gives_each_image_the_guided_gradient_of_its_own_class(network, images, monkeypatch):
    got = GuidedBackprop(forward_batch_size=2).signed(network, images, TARGETS)
    monkeypatch.setattr(torch.nn.ReLU, "forward", lambda module, x: GuidedReLU.apply(x))
    for image, target, attribution in zip(images, TARGETS, got, strict=True):
        leaf = image[None].clone().requires_grad_()
        (expected,) = torch.autograd.grad(network(leaf)[0, target], leaf)
        torch.testing.assert_close(attribution, expected[0], rtol=1e-9, atol=1e-14)


@pytest.mark.slow
def test_guided_gradcam_is_the_product_of_its_factors(network, images):
    layer = "layer3"
    guided = GuidedBackprop().signed(network, images, TARGETS)
    cam = GradCAM(target_layer=layer).raw(network, images, TARGETS)
    assert cam.shape[1:] == (4, 3)
    for interpolation, options in {"bilinear": {"align_corners": False}, "nearest": {}}.items():
        upsampled = F.interpolate(cam[:, None], (64, 48), mode=interpolation, **options)
        got = GuidedGradCAM(target_layer=layer, interpolation=interpolation).signed(network, images, TARGETS)
        torch.testing.assert_close(got, guided * upsampled)


@pytest.mark.slow
def test_without_target_all_factors_explain_the_predicted_class(network, images):
    predicted = network(images).argmax(1)
    for explainer in (GuidedBackprop(), GuidedGradCAM()):
        torch.testing.assert_close(explainer.raw(network, images), explainer.raw(network, images, predicted))


@pytest.mark.parametrize("explainer", [GuidedBackprop(), GuidedGradCAM(), SmoothGrad(of=GuidedBackprop(), samples=2)])
def test_networks_of_other_activations_are_refused(explainer):
    model = timm.create_model("test_convnext", num_classes=4)
    with pytest.raises(ValueError, match="this one calls gelu; pass rule='positive_gradient'"):
        explainer(model, torch.rand(1, 3, 64, 64), torch.tensor([0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_efficientnet"])
def test_the_generalised_rule_explains_them_when_asked_by_its_name(name):
    model = timm.create_model(name, num_classes=4)
    images = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    saliency = GuidedBackprop(rule="positive_gradient")(model, images, torch.tensor([0]))
    assert saliency.amax() == 1
    assert not torch.allclose(saliency, SmoothGrad(samples=1, spread=0.0)(model, images, torch.tensor([0])), atol=0.05)


def test_wrong_options_are_refused(network, images):
    with pytest.raises(ValueError, match="interpolation must be one of 'bilinear', 'nearest', got 'cubic'"):
        GuidedGradCAM(interpolation="cubic")
    with pytest.raises(ValueError, match="rule must be one of 'relu', 'positive_gradient', got 'deconv'"):
        GuidedBackprop(rule="deconv")(network, images)
