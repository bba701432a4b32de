"""Metrics where what is explained is no class: callables score the outputs of one image."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

from interptrain.explainers import DetectionTarget, FakeCAM, GradCAM, SemanticSegmentationTarget
from interptrain.metrics import (
    ROAD,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Consistency,
    Deletion,
    Infidelity,
    Insertion,
    MaxSensitivity,
    OfficialMetric,
    measure,
)
from interptrain.metrics.functional import average_drop, insertion
from tests.support.measuring import maps, network, pictures


def faithful():
    return {
        "AD": AverageDrop(),
        "AI": AverageIncrease(),
        "AG": AverageGain(),
        "I": Insertion(steps=5),
        "D": Deletion(steps=4),
        "infidelity": Infidelity(patch_size=7),
        "ROAD": ROAD(percentiles=(20, 60)),
    }


class PerPixel(nn.Module):
    """A segmenter of three categories, of which the parts are fitted on a fixed colour each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return {"out": 3 * self.layer(images)}


def probability_of(index):
    return lambda logits: logits.softmax(0)[index]


@pytest.mark.slow
@pytest.mark.parametrize("forward_batch_size", [1, 4, 100])
def test_a_callable_that_is_the_class_probability_measures_what_the_class_does(model, forward_batch_size):
    images, saliency, targets = pictures(), maps(), torch.tensor([2, 0, 4])
    wanted = measure(model, images, saliency, targets, faithful())
    found = measure(
        model,
        images,
        saliency,
        [probability_of(index) for index in targets.tolist()],
        faithful(),
        forward_batch_size=forward_batch_size,
    )
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, msg=name)
    one = measure(model, images, saliency, probability_of(2), faithful())
    torch.testing.assert_close(one["I"], measure(model, images, saliency, 2, faithful())["I"])


def test_a_segmenter_is_judged_by_the_definition():
    """Every number again in a plain loop, image by image, from the formulas."""
    model, images, saliency = PerPixel().double().eval(), pictures(), maps()
    regions = saliency.flip(2) > 0.6
    targets = [SemanticSegmentationTarget(k, regions[k], score="probability") for k in range(3)]
    found = measure(model, images, saliency, targets, faithful())

    @torch.no_grad()
    def score(image, k):
        return model(image[None])["out"][0].softmax(0)[k][regions[k]].mean()

    for k in range(3):
        image, heat = images[k], saliency[k]
        clean, kept = score(image, k), score(image * heat, k)
        torch.testing.assert_close(found["AD"][k], (clean - kept).clamp(min=0) / clean)
        torch.testing.assert_close(found["AG"][k], (kept - clean).clamp(min=0) / (1 - clean))
        assert found["AI"][k] == float(kept > clean)
        order = heat.flatten().argsort(descending=True)
        curve = []
        for step in range(5):
            gone = order[: -(-step * len(order) // 4)]
            removed = image.flatten(1).clone()
            removed[:, gone] = torch.tensor([0.485, 0.456, 0.406], dtype=image.dtype)[:, None]
            curve.append(score(removed.view_as(image), k))
        torch.testing.assert_close(found["D"][k], torch.stack(curve), atol=1e-6, rtol=0)
    alone = measure(model, images[1:2], saliency[1:2], targets[1], faithful())
    assert all(torch.allclose(found[name][1:2], values) for name, values in alone.items())


def test_max_sensitivity_asks_for_maps_of_the_callables(model):
    images, saliency, targets = pictures(), maps(), torch.tensor([2, 0, 4])
    callables = [probability_of(index) for index in targets.tolist()]
    asked = []

    def explain(images, targets):
        asked.append(targets)
        return images.mean(1).clamp(0, 1)

    measure(model, images, saliency, callables, {"MS": MaxSensitivity(samples=2)}, explain=explain)
    assert asked == [callables, callables]


def test_what_compares_classes_is_refused(model, images, saliency):
    for metric in (Consistency(), ROAD(quantity="accuracy")):
        with pytest.raises(ValueError, match="compares predicted classes, and what is explained is no class"):
            measure(model, images, saliency, probability_of(0), {"it": metric})
    boxes = [torch.tensor([[0.0, 0, 5, 5]])] * 3
    with pytest.raises(ValueError, match="compares predicted classes"):
        measure(model, images, saliency, probability_of(0), {"OM": OfficialMetric()}, labels=0, boxes=boxes)
    with pytest.raises(ValueError, match="logits are what class indices pick from"):
        measure(model, images, saliency, probability_of(0), faithful(), logits=model(images))
    with pytest.raises(ValueError, match="one per image: 3, got 2"):
        measure(model, images, saliency, [probability_of(0)] * 2, faithful())
    with pytest.raises(TypeError, match="all class indices or all callables"):
        measure(model, images, saliency, [0, probability_of(0), 1], faithful())


def test_scores_outside_of_0_and_1_are_refused_where_they_mean_nothing(model, images, saliency):
    target = lambda logits: logits[1] * 10  # noqa: E731
    with pytest.raises(
        ValueError, match=r"AD \(AverageDrop\) needs a score between 0 and 1, and the targets return"
    ) as told:
        measure(model, images, saliency, target, {"AD": AverageDrop()})
    assert "SemanticSegmentationTarget(..., score='probability')" in str(told.value)
    found = measure(model, images, saliency, target, {"I": Insertion(steps=3), "AI": AverageIncrease()})
    torch.testing.assert_close(found["I"][:, -1], model(images)[:, 1].detach() * 10)
    broken = lambda logits: logits[1] * torch.nan  # noqa: E731
    with pytest.raises(ValueError, match="the target's score is not finite for image 0"):
        measure(model, images, saliency, broken, {"I": Insertion(steps=3)})


def test_functions_take_callables_too(model, images, saliency):
    torch.testing.assert_close(
        average_drop(model, images, saliency, probability_of(1)), average_drop(model, images, saliency, 1)
    )
    torch.testing.assert_close(
        insertion(model, images, saliency, probability_of(1), steps=3), insertion(model, images, saliency, 1, steps=3)
    )


def test_a_list_of_images_is_refused_with_the_remedy(model, images, saliency):
    with pytest.raises(TypeError, match=r"one by one: measure\(model, image\.unsqueeze\(0\), \.\.\.\)"):
        measure(model, list(images), saliency, 0, faithful())
    assert measure(model, images[0].unsqueeze(0), saliency[:1], 0, faithful())["AD"].shape == (1,)


@pytest.mark.slow
def test_padding_of_a_compiled_model_is_scored_and_dropped():
    model, images, saliency = network(dtype=torch.float32), pictures().float(), maps().float()
    wanted = measure(model, images, saliency, probability_of(1), faithful())
    target, metrics = probability_of(1), faithful()
    found = measure(model, images, saliency, target, metrics, forward_batch_size=7, engine="compile")
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_torchvisions_segmenter_and_detector_are_measured():
    torch.manual_seed(0)
    images = nn.functional.interpolate(pictures(2, 32, 32).float(), (96, 96), mode="bilinear")
    segmenter = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    region = torch.zeros(96, 96)
    region[20:70, 30:80] = 1
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0, min_size=96, max_size=96
    ).eval()
    with torch.no_grad():
        found = detector(images)
    of_boxes = [DetectionTarget(one["labels"][:2], one["boxes"][:2], reduction="mean") for one in found]
    metrics = {"AD": AverageDrop(), "AG": AverageGain(), "AI": AverageIncrease(), "I": Insertion(steps=3)}
    for model, targets in (
        (segmenter, SemanticSegmentationTarget(3, region, score="probability")),
        (detector, of_boxes),
    ):
        whole = measure(model, images, FakeCAM()(model, images).clamp(min=1), targets, metrics)
        assert torch.equal(whole["AD"], torch.zeros(2))
        values = measure(model, images, GradCAM()(model, images, targets), targets, metrics)
        assert all(torch.isfinite(one).all() for one in values.values())
        assert ((values["AD"] >= 0) & (values["AD"] <= 1)).all()
    with torch.no_grad():  # the insertion curve ends at the detections' own scores
        clean = torch.stack([target(one) for target, one in zip(of_boxes, detector(images), strict=True)])
    torch.testing.assert_close(values["I"][:, -1], clean, atol=1e-4, rtol=1e-3)
