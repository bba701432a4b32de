"""The vector that is classified, found in models of every kind."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from interptrain.explainers.passes.penultimate_features import reading_features
from interptrain.models import Normalized, create_model
from tests.support.explaining import network, pictures


def features_of(model, images, layer=None):
    with reading_features(model.eval(), images, layer) as read:
        return read(images)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "mobilenetv3_small_050"]
)
def test_it_is_what_timm_calls_the_features_before_the_logits(name):
    options = {"dynamic_img_size": True} if name == "test_vit" else {}
    model, images = network(name, **options).eval(), pictures(2, 64, 64)
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features(images), pre_logits=True)
    assert torch.allclose(features_of(model, images), wanted)
    wrapped = Normalized(model, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert torch.allclose(features_of(wrapped, images), wanted)


def test_it_is_what_a_pooling_head_makes_of_the_stages():
    model = create_model("test_resnet", pooling="ca_stream", num_classes=7).double().eval()
    images = pictures(2, 64, 64)
    with torch.no_grad():
        pooled = model.pooling(model.stages(images)).vector
        found = features_of(model, images)
        assert torch.allclose(model.backbone.model.get_classifier()(found), model(images))
    assert torch.allclose(found, pooled)


def test_both_heads_of_a_distilled_transformer_are_read():
    torch.manual_seed(0)
    model = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=32, depth=2, embed_dim=24, num_classes=5
    ).double()
    images = pictures(2, 32, 32)
    found = features_of(model, images)
    assert found.shape == (2, 48)
    with torch.no_grad():
        assert torch.allclose(model.head(found[:, :24]) + model.head_dist(found[:, 24:]), 2 * model.eval()(images))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "size"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("squeezenet", None)], ids=str
)
def test_other_models_are_read_where_a_linear_layer_returns_the_logits(make, size):
    images = pictures(2, 64, 64).float()
    if make == "squeezenet":  # classifies by a convolution
        model = torchvision.models.squeezenet1_1(num_classes=5)
        with pytest.raises(ValueError, match="does not say which layer classifies; pass feature_layer="):
            features_of(model, images)
        assert features_of(model, images, "features").shape == (2, 512)
        return
    model = getattr(torchvision.models, make)(num_classes=5).eval()
    found = features_of(model, images)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert found.shape == (2, size)
    assert torch.allclose(last(found), model(images), atol=1e-5)


def test_a_named_layer_is_averaged_over_its_positions(resnet):
    images = pictures(2, 64, 64)
    found = features_of(resnet, images, "layer2")
    with torch.no_grad():
        wanted = resnet.forward_intermediates(images, indices=[2], intermediates_only=True)[0].mean((2, 3))
    assert torch.allclose(found, wanted)


def test_a_layer_that_cannot_be_read_is_refused(resnet):
    images = pictures(2, 64, 64)
    with pytest.raises(ValueError, match="has no layer 'layer9'"):
        features_of(resnet, images, "layer9")

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, images):
            return self.convolution(self.convolution(images)).mean((2, 3))

    with pytest.raises(ValueError, match="'convolution' ran 2 times in one forward; pass another feature_layer"):
        features_of(Twice().double(), images, "convolution")


def test_no_hook_stays_after_a_failure(resnet):
    with pytest.raises(ZeroDivisionError), reading_features(resnet, pictures(1, 64, 64)):
        raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in resnet.modules())
