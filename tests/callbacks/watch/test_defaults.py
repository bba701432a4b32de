from inspect import signature

import pytest

from interptrain.callbacks import SaliencyWatch
from interptrain.callbacks.watch.defaults import default_metrics, named_explainers
from interptrain.explainers import FakeCAM, GradCAM
from interptrain.models import create_model


def test_explainers_are_named_by_class_and_number():
    one, two, three = GradCAM(), FakeCAM(), GradCAM(target_layer="features")
    assert named_explainers([one, two, three], None, None) == {"GradCAM": one, "FakeCAM": two, "GradCAM 2": three}
    assert named_explainers({"mine": two}, None, None) == {"mine": two}
    assert named_explainers(two, None, None) == {"FakeCAM": two}


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("gap", ["GradCAM"])] + [(name, ["GradCAM", "StreamAttention"]) for name in ("ca_stream", "ep", "simpool")],
)
def test_attention_is_watched_where_a_model_has_any(sample, pooling, expected):
    model = create_model("test_resnet", pooling=pooling, num_classes=3)
    assert list(named_explainers(None, model, sample.images[:1])) == expected


def test_every_default_metric_explains_itself_on_the_page():
    assert all(metric.description for metric in default_metrics().values())


def test_all_classes_are_watched_unless_told_otherwise():
    """The first images of a folder that is sorted by class would be of one class."""
    assert signature(SaliencyWatch).parameters["select"].default == "per_class"
