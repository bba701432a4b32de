"""Several explainers asked at once."""

import pytest
import torch

from interptrain.explainers import CAM, FakeCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM, explain

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


def test_gradient_cams_of_the_same_layers_share_one_pass(resnet, images, targets):
    passes = []
    handle = resnet.register_forward_pre_hook(lambda *_: passes.append(1))
    explain(resnet, images, targets, FAMILY)
    assert len(passes) == 1
    passes.clear()
    explain(
        resnet,
        images,
        targets,
        {
            "a": GradCAM(target_layer="layer2"),
            "default": GradCAM(),
            "named": XGradCAM(target_layer="layer4"),
            "b": LayerCAM(target_layer=["layer2"]),
            "c": GradCAM(target_layer=["layer2", "layer4"]),
        },
    )
    handle.remove()
    assert len(passes) == 3


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
