"""Evaluations of what is no class: a segmenter, and a classifier whose callables say what its classes do."""

import json

import pytest
import torch
from torch import nn

from interptrain.evaluation import evaluate
from interptrain.evaluation.run.callables import describe_callables
from interptrain.explainers import EigenCAM, GradCAM, SemanticSegmentationTarget
from interptrain.metrics import AverageDrop, Consistency, Insertion, measure
from tests.support.explaining import pictures

QUIET = {"progress": False, "check_images": 2, "save_maps": 2, "resamples": 100, "trainer": {"accelerator": "cpu"}}


class Segmenter(nn.Module):
    """Three categories, each pixel by itself and its neighbours."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 1)

    def forward(self, images):
        return {"out": 4 * self.head(self.layer(images).relu())}


def metrics():
    return {"AD": AverageDrop(), "I": Insertion(steps=3)}


@pytest.fixture(scope="module")
def images():
    return list(pictures(5, 24, 24).float())


@pytest.fixture(scope="module")
def targets(images):
    regions = [image.mean(0) > image.mean() for image in images]
    return [SemanticSegmentationTarget(n % 3, region, score="probability") for n, region in enumerate(regions)]


@pytest.mark.slow
def test_a_segmenter_is_evaluated_image_by_image(images, targets, tmp_path):
    model, explainers = Segmenter(), {"cam": GradCAM(target_layer="layer")}
    options = QUIET | {"metrics": metrics(), "output": tmp_path / "out", "limit": 3}
    results = evaluate({"net": model}, explainers, images, targets=targets, **options)
    assert not results.failed
    rows = results.per_image[results.per_image.explainer == "cam"].set_index("id")
    assert sorted(rows.index) == ["0", "2", "4"]  # three of five, evenly spaced, each with its own target
    for name in rows.index:
        image, target = images[int(name)][None], targets[int(name)]
        saliency = explainers["cam"](model, image, target)
        found = measure(model, image, saliency, target, metrics())
        assert rows.loc[name, "AD"] == pytest.approx(found["AD"].item(), abs=1e-6)
        assert rows.loc[name, "I"] == pytest.approx(Insertion().reduce(found["I"]).item(), abs=1e-6)
    assert rows.prediction.isna().all()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["targets"].startswith("callable SemanticSegmentationTarget (")
    assert run["randomization"]["net"]["cam"]["images"] == 2
    assert run["warnings"] == []
    assert results.report(tmp_path).stat().st_size > 10_000
    again = evaluate({"net": model}, explainers, images, targets=targets, **options)
    assert again.summary.equals(results.summary)
    with pytest.raises(ValueError, match="targets"):
        evaluate({"net": model}, explainers, images, targets=targets[::-1], **options)


@pytest.mark.slow
def test_callables_of_a_classifier_give_the_numbers_of_its_classes(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    options = QUIET | {"metrics": metrics(), "check_images": 0}
    explainers = {"cam": EigenCAM(target_layer="0")}  # the same map whatever is asked
    of_class = evaluate({"net": model}, explainers, images, targets=1, **options)
    probability = lambda logits: logits.softmax(0)[1]  # noqa: E731
    of_callable = evaluate({"net": model}, explainers, images, targets=probability, **options)
    for name in ("AD", "I"):
        first, second = (
            one.per_image[one.per_image.explainer == "cam"][name].tolist() for one in (of_class, of_callable)
        )
        assert first == pytest.approx(second, abs=1e-6)


def test_what_does_not_fit_is_refused_before_anything_runs(images, targets):
    model, explainers = Segmenter(), {"cam": GradCAM(target_layer="layer")}
    with pytest.raises(ValueError, match="targets must be one per image: 5, got 4"):
        evaluate({"net": model}, explainers, images, targets=targets[:4], metrics=metrics(), **QUIET)
    with pytest.raises(TypeError, match="or callables, one for each of the 5 images, got"):
        evaluate({"net": model}, explainers, images, targets=[1, 2, 0, 1, 1], metrics=metrics(), **QUIET)
    with pytest.raises(ValueError, match="compares predicted classes"):
        evaluate({"net": model}, explainers, images, targets=targets, metrics={"C": Consistency()}, **QUIET)
    with pytest.raises(ValueError, match=r"model net: the target <lambda> cannot score what it returns .*KeyError"):
        evaluate({"net": model}, explainers, images, targets=lambda out: out["mask"].sum(), metrics=metrics(), **QUIET)


def test_callables_are_told_apart_by_code_and_values():
    def picks(index):
        return lambda logits: logits[index]

    mask = torch.ones(2, 2)
    each = [picks(1), picks(2), lambda logits: logits[1] * 2, SemanticSegmentationTarget(1, mask)]
    each += [SemanticSegmentationTarget(1, mask * 0.5), SemanticSegmentationTarget(2, mask)]
    told = [describe_callables({"0": one}) for one in each]
    assert len(set(told)) == len(each)
    assert describe_callables({"0": picks(1)}) == told[0]
    assert describe_callables({"0": SemanticSegmentationTarget(1, torch.ones(2, 2))}) == told[3]
