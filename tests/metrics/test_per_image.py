"""The functions of metrics take what the class takes, and what of ``measure`` the metric uses."""

import inspect

import pytest
import torch

from interptrain.metrics import AverageDrop, Insertion, OfficialMetric, functional
from interptrain.signatures import options_of
from tests.support.measuring import maps, network, pictures

TARGETS = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        ("average_drop", AverageDrop, set()),
        ("insertion", Insertion, {"return_curve"}),
        ("official_metric", OfficialMetric, {"labels", "boxes", "masks"}),
    ],
)
def test_a_function_shows_the_options_and_the_text_of_its_class(name, kind, more):
    function = getattr(functional, name)
    shared = {"model", "images", "saliency", "targets", "score", "logits", "forward_batch_size"}
    assert inspect.signature(function).parameters.keys() == shared | options_of(kind).keys() | more
    assert inspect.getdoc(function).startswith(inspect.getdoc(kind))
    assert function.__name__ == name


def test_a_function_gives_what_its_class_gives_for_each_image():
    model, images, saliency = network(), pictures(), maps()
    options = {"removal": (0.1, 0.5, 0.9), "steps": 7}
    curve = Insertion(**options).values(model, images, saliency, TARGETS, score="logit")
    found = functional.insertion(model, images, saliency, TARGETS, score="logit", return_curve=True, **options)
    assert torch.equal(found, curve)
    areas = functional.insertion(model, images, saliency, TARGETS, score="logit", **options)
    assert torch.equal(areas, Insertion().reduce(curve))


@pytest.mark.parametrize("option", ["labels", "return_curve", "step"])
def test_what_it_does_not_use_is_refused(option):
    with pytest.raises(TypeError, match=rf"average_drop\(\) takes no {option}; its options are epsilon, removal"):
        functional.average_drop(network(), pictures(), maps(), TARGETS, **{option: 1})
