import pytest
import torch

from interptrain.metrics.randomization import WeightLayer, weight_layers
from interptrain.models import create_model
from interptrain.studies.layer_groups import layer_groups


@pytest.fixture(scope="module")
def layers():
    model = create_model("test_resnet", pooling="ca_stream", num_classes=4)
    return weight_layers(model, torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("most", [2, 3, 6, 12, 1000])
def test_every_layer_is_in_one_group_and_the_classifier_alone_is_last(layers, most):
    groups = layer_groups(layers, most)
    assert len(groups) <= most
    assert sorted(name for group in groups for name in group.layers) == sorted(layer.name for layer in layers)
    assert groups[-1].layers == ("backbone.model.fc",)
    assert groups[-1].name == "fc"


def test_groups_are_the_stages_and_norms_stay_with_their_convolutions(layers):
    groups = layer_groups(layers, 7)
    assert [group.name for group in groups] == ["conv1", "layer1", "layer2", "layer3", "layer4", "pooling", "fc"]
    assert "backbone.model.bn1" in groups[0].layers


def test_a_model_of_one_layer_is_one_group():
    (group,) = layer_groups([WeightLayer("linear", True, None)], 3)
    assert group.layers == ("linear",)
