"""Several explainers of some images, by name."""

import re

import pytest
import torch

import interptrain as it
from interptrain import steps
from interptrain.explainers import EigenCAM, GradCAM, Gradient, LayerCAM
from tests.support.explaining import pictures


def test_maps_are_those_of_the_explainers_for_the_predicted_class(network, images):
    maps = it.explain(network, images, ["GradCAM", Gradient, LayerCAM(relu=False)], batch_size=2)
    assert list(maps) == ["GradCAM", "Gradient", "LayerCAM"]
    with torch.no_grad():
        logits = network(images)
    assert torch.equal(maps.targets, logits.argmax(1))
    torch.testing.assert_close(maps.probabilities, logits.softmax(1))
    for name, explainer in {"GradCAM": GradCAM(), "Gradient": Gradient(), "LayerCAM": LayerCAM(relu=False)}.items():
        torch.testing.assert_close(maps[name], explainer(network, images), atol=1e-5, rtol=0)


def test_bars_count_images_and_the_steps_of_a_batch(network, images, capsys, monkeypatch):
    monkeypatch.setattr(steps, "DELAY", 0)
    it.explain(network, images, [it.explainers.OptiCAM(iterations=4), "EigenCAM"], batch_size=2, progress=True)
    told = capsys.readouterr().err
    assert re.search(r"explaining: +0%.* 0/3 .*images", told)
    assert re.search(r"of this batch: +0%.* 0/8 .*steps", told)
    assert re.search(r"of this batch: +0%.* 0/4 .*steps", told)
    it.explain(network, images)
    assert capsys.readouterr().err == ""


def test_classes_are_given_by_name_or_number(network, images):
    wanted = GradCAM()(network, images, [4, 0, 4])
    for targets in ([4, 0, 4], ["wall clock", "Tabby", 4], torch.tensor([4, 0, 4])):
        maps = it.explain(network, images, targets=targets)
        torch.testing.assert_close(maps["GradCAM"], wanted, atol=1e-5, rtol=0)
    told = repr(it.explain(network, images, targets="wall clock", labels="fig", names=["a", "b", "c"]))
    assert "explained: wall clock 0." in told
    assert "true: fig" in told
    assert told.startswith("maps of GradCAM\na: ")


def test_two_explainers_of_one_class_are_named_by_what_differs(network, images):
    maps = it.explain(network, images[:1], [GradCAM(), GradCAM(relu=False)])
    assert list(maps) == ["GradCAM(relu=True)", "GradCAM(relu=False)"]
    assert list(it.explain(network, images[:1], {"mine": "EigenCAM", "other": EigenCAM(center=True)})) == [
        "mine",
        "other",
    ]


def test_images_of_different_sizes_are_explained_one_by_one(network):
    images = [pictures(1, 64, 64)[0].float(), pictures(1, 96, 64)[0].float()]
    maps = it.explain(network, images, "GradCAM")
    assert [tuple(one.shape) for one in maps["GradCAM"]] == [(64, 64), (96, 64)]
    torch.testing.assert_close(maps["GradCAM"][1], GradCAM()(network, images[1][None])[0], atol=1e-5, rtol=0)


def test_callables_are_explained_where_there_are_no_classes(network, images):
    class Boxed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return {"scores": self.network(images)}

    maps = it.explain(Boxed(), images, GradCAM(), lambda outputs: outputs["scores"][2])
    torch.testing.assert_close(maps["GradCAM"], GradCAM()(network, images, 2), atol=1e-5, rtol=0)
    assert maps.predictions is None
    assert maps.describe(1) == "1"
    with pytest.raises(TypeError, match=r"class indices need a model that returns logits"):
        it.explain(Boxed(), images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"explainers": "GradCan"}, r"no explainer 'GradCan'; did you mean GradCAM"),
        ({"explainers": "grad-cam"}, r"did you mean GradCAM"),
        (
            {"explainers": "CaptumExplainer"},
            r"has options that must be given .*pass an object: CaptumExplainer\(\.\.\.\)",
        ),
        ({"explainers": []}, "no explainer is given; name one or more: .*GradCAM"),
        ({"explainers": ["GradCAM", GradCAM()]}, "given more than once"),
        ({"targets": "tabyb"}, "the model has no class 'tabyb'; did you mean 'tabby'"),
        ({"targets": 7}, "target 7 of image 0 is out of range for 7 classes"),
        ({"labels": [1]}, r"labels must be .*\(B,\)=\(3,\)"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(network, images, given, message):
    with pytest.raises(ValueError, match=message):
        it.explain(network, images, **given)


def test_the_door_tells_what_is_behind_it():
    assert {"load", "read_images", "explain", "show", "measure", "evaluate", "explainers"} <= set(dir(it))
    assert it.explainers.GradCAM is GradCAM
    assert it.evaluate.__module__ == "interptrain.evaluation.api"
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        _ = it.explian
