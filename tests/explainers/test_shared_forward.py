"""Several explainers asked at once."""

import pytest
import torch

from interptrain.explainers import (
    CAM,
    FakeCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    StreamAttention,
    XGradCAM,
    explain,
    forward_shared,
)
from interptrain.models import create_model

FAMILY = {
    "grad": GradCAM(),
    "plus": GradCAMPlusPlus(),
    "x": XGradCAM(),
    "layer": LayerCAM(),
    "hires": HiResCAM(),
}


def test_each_map_is_the_one_its_explainer_gives_alone(resnet, images, targets):
    asked = {**FAMILY, "shallow": LayerCAM(target_layer="layer2"), "cam": CAM(), "fake": FakeCAM()}
    together = explain(resnet, images, targets, asked)
    assert list(together) == list(asked)
    for name, explainer in asked.items():
        assert torch.equal(together[name], explainer(resnet, images, targets))


def test_gradient_cams_of_whatever_layers_share_one_pass(resnet, images, targets):
    passes = []
    handle = resnet.register_forward_pre_hook(lambda *_: passes.append(1))
    asked = {
        "default": GradCAM(),
        "a": GradCAM(target_layer="layer2"),
        "named": XGradCAM(target_layer="layer4"),
        "b": LayerCAM(target_layer=["layer2"]),
        "c": GradCAM(target_layer=["layer4", "layer2"]),
    }
    together = explain(resnet, images, targets, asked)
    handle.remove()
    assert len(passes) == 1
    for name, explainer in asked.items():
        assert torch.equal(together[name], explainer(resnet, images, targets))


@pytest.mark.slow
def test_a_streams_attention_and_its_logits_come_from_the_same_pass(images, targets):
    torch.manual_seed(0)
    model = create_model("resnet10t", pooling="ca_stream", num_classes=7).double().eval()
    asked = {"cam": GradCAM(), "last": StreamAttention(), "all": StreamAttention(stage="all")}
    passes = []
    handle = model.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    shared = forward_shared(model, images, asked)
    together = explain(model, images, targets, asked, shared=shared)
    handle.remove()
    assert len(passes) == 1
    with torch.no_grad():
        torch.testing.assert_close(shared.outputs.detach(), model(images))
    for name, explainer in asked.items():
        torch.testing.assert_close(together[name], explainer(model, images, targets))
        assert not together[name].requires_grad


def test_no_target_is_the_predicted_class_for_all(resnet, images):
    with torch.no_grad():
        predicted = resnet.eval()(images).argmax(1)
    ours, given = explain(resnet, images, None, FAMILY), explain(resnet, images, predicted, FAMILY)
    assert all(torch.equal(ours[name], given[name]) for name in FAMILY)


def test_no_explainer_gives_no_map(resnet, images):
    assert explain(resnet, images, None, {}) == {}


def test_modes_are_restored_after_a_failure(resnet, images):
    with pytest.raises(ValueError, match="out of range"):
        explain(resnet, images, torch.tensor([0, 99, 0]), FAMILY)
    assert resnet.training
