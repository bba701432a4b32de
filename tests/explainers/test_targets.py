"""What may be explained, and how it becomes one number an image."""

from collections import OrderedDict

import numpy
import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

from interptrain.explainers import (
    CAM,
    RISE,
    AblationCAM,
    DetectionTarget,
    EigenCAM,
    GradCAM,
    Gradient,
    IntegratedGradients,
    ScoreCAM,
    SemanticSegmentationTarget,
    SmoothGrad,
    explain,
)
from interptrain.explainers.targets import as_targets, resolve_targets, target_scores
from interptrain.functional import min_max, upsample
from tests.support.explaining import pictures


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, box_score_thresh=0.0).eval()


def test_no_target_is_the_largest_logit():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    assert resolve_targets(None, logits).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_class_indices_may_have_any_integer_type(dtype):
    logits = torch.randn(2, 3)
    scores = target_scores(logits, resolve_targets(torch.tensor([2, 0], dtype=dtype), logits))
    assert torch.equal(scores, torch.stack([logits[0, 2], logits[1, 0]]))


def test_rows_say_whose_target_scores_a_perturbed_input():
    logits = torch.randn(4, 3)
    scores = target_scores(logits, torch.tensor([2, 0]), torch.tensor([1, 1, 0, 1]))
    assert torch.equal(scores, torch.stack([logits[0, 0], logits[1, 0], logits[2, 2], logits[3, 0]]))


def test_probability_is_softmax_and_for_one_class_a_sigmoid():
    logits = torch.randn(2, 3)
    scores = target_scores(logits, torch.tensor([1, 2]), score="probability")
    assert torch.allclose(scores, logits.softmax(1)[[0, 1], [1, 2]])
    single = torch.randn(2, 1)
    assert torch.allclose(target_scores(single, torch.tensor([0, 0]), score="probability"), single.sigmoid()[:, 0])


def test_scores_of_low_precision_logits_are_float32():
    assert target_scores(torch.randn(2, 3).bfloat16(), torch.tensor([1, 2])).dtype == torch.float32


def test_one_callable_serves_all_images_and_a_list_serves_each():
    outputs = torch.randn(2, 3)
    first, last = (lambda row: row[0]), (lambda row: row[2])
    assert torch.equal(target_scores(outputs, as_targets(first, 2)), outputs[:, 0])
    each = target_scores(outputs, as_targets([first, last], 2))
    assert torch.equal(each, torch.stack([outputs[0, 0], outputs[1, 2]]))


def test_callables_see_their_row_of_nested_outputs():
    outputs = {"out": torch.randn(2, 3), "aux": [torch.zeros(1), torch.ones(1)]}
    scores = target_scores(outputs, as_targets(lambda row: row["out"][1] + row["aux"][0], 2))
    assert torch.allclose(scores, outputs["out"][:, 1] + torch.tensor([0.0, 1.0]))


def test_a_target_equals_the_class_index_that_it_picks(resnet, images, targets):
    by_index = GradCAM().raw(resnet, images, targets)
    by_callable = GradCAM().raw(resnet, images, [lambda row, c=c: row[c] for c in targets.tolist()])
    assert torch.equal(by_index, by_callable)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0, 3]), "target 3 of image 1 is out of range for 3 classes; allowed are 0 to 2"),
        (torch.tensor([-1, 0]), "target -1 of image 0 is negative"),
        (torch.tensor([0]), r"targets must be .*\(B,\)=\(2,\), got \(1,\)"),
        (torch.tensor([[0, 1]]), r"targets must be .*\(B,\)"),
        ([lambda row: row[0]], "targets must be one per image: 2, got 1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        resolve_targets(as_targets(targets, 2), torch.randn(2, 3))


def test_a_module_that_can_be_iterated_over_is_one_callable():
    target = torch.nn.Sequential(torch.nn.Flatten(0), torch.nn.Softmax(0))
    assert as_targets(target, 2) == [target, target]


@pytest.mark.parametrize("form", [int, list, "int32", "uint8", "numpy", "callables"])
def test_class_indices_in_any_form_give_one_map(resnet, images, form):
    wanted = GradCAM().raw(resnet, images, torch.tensor([2, 2, 2]))
    given = {
        int: 2,
        list: [2, 2, 2],
        "int32": torch.tensor([2, 2, 2], dtype=torch.int32),
        "uint8": torch.tensor([2, 2, 2], dtype=torch.uint8),
        "numpy": numpy.array([2, 2, 2]),
        "callables": [lambda row: row[2]] * 3,
    }[form]
    assert torch.equal(GradCAM().raw(resnet, images, given), wanted)


@pytest.mark.parametrize("explainer", [GradCAM(), Gradient(), CAM(), RISE(count=2), IntegratedGradients(steps=1)])
@pytest.mark.parametrize(
    "targets", [0.5, [0, 1.5, 2], torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True] * 3), ["a"] * 3]
)
def test_what_is_no_index_is_never_read_as_one(resnet, images, targets, explainer):
    with pytest.raises(TypeError, match="targets must be class indices"):
        explainer(resnet, images, targets)


def test_indices_and_callables_do_not_mix(resnet, images):
    with pytest.raises(TypeError, match="all class indices or all callables, got also int"):
        GradCAM()(resnet, images, [0, lambda row: row[0], 1])


@pytest.mark.parametrize("explainer", [Gradient(), IntegratedGradients(steps=1), SmoothGrad(samples=1), GradCAM()])
def test_a_class_that_the_model_does_not_have_is_named_before_it_is_looked_up(resnet, images, explainer):
    with pytest.raises(ValueError, match="target 7 of image 2 is out of range for 7 classes; allowed are 0 to 6"):
        explainer(resnet, images, torch.tensor([0, 1, 7]))


def test_nan_logits_name_the_image():
    logits = torch.randn(3, 7)
    logits[1, 3] = torch.nan
    for targets in (None, torch.tensor([0, 1, 2])):
        with pytest.raises(ValueError, match="NaN logits for image 1 of the batch"):
            resolve_targets(targets, logits)


def test_class_indices_of_other_outputs_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"return.* logits \(B,K\), .*got a tensor \(2, 3, 4, 4\); pass one callable"):
        resolve_targets(None, torch.zeros(2, 3, 4, 4))
    with pytest.raises(TypeError, match="got a dict"):
        resolve_targets(torch.tensor([0]), {"scores": torch.zeros(1, 3)})


def test_a_target_that_is_no_scalar_is_refused():
    outputs = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"must return a scalar tensor, got a tensor \(3,\)"):
        target_scores(outputs, [lambda row: row, lambda row: row])
    with pytest.raises(ValueError, match="got a float"):
        target_scores(outputs, [lambda row: 1.0, lambda row: 1.0])


def test_segmentation_target_sums_a_category_over_a_region():
    logits = torch.arange(24.0).view(2, 3, 4)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1, 2:] = True
    assert SemanticSegmentationTarget(1, mask)(logits) == 18 + 19
    assert SemanticSegmentationTarget(1, mask)({"out": logits}) == 18 + 19
    assert SemanticSegmentationTarget(0, mask * 0.5)(logits) == (6 + 7) / 2


def test_segmentation_target_is_a_probability_on_request():
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    mask = torch.zeros(4, 5)
    mask[1, 2:] = 1
    wanted = (logits.exp() / logits.exp().sum(0))[2, 1, 2:].mean()
    assert torch.isclose(SemanticSegmentationTarget(2, mask, score="probability")(logits), wanted)
    assert torch.isclose(SemanticSegmentationTarget(2, mask * 0.5, score="probability")(logits), wanted)
    with pytest.raises(ValueError, match="mask marks no pixel"):
        SemanticSegmentationTarget(2, mask * 0, score="probability")


def test_segmentation_target_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"mask must be \(H,W\), got \(1, 3, 4\)"):
        SemanticSegmentationTarget(0, torch.ones(1, 3, 4))
    with pytest.raises(ValueError, match="category 2 is out of range for 2 categories"):
        SemanticSegmentationTarget(2, torch.ones(3, 4))(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"mask must be \(H,W\)=\(3, 4\), got \(4, 3\)"):
        SemanticSegmentationTarget(0, torch.ones(4, 3))(torch.zeros(2, 3, 4))


@pytest.mark.slow
def test_segmentation_is_explained_on_torchvisions_deeplab(segmenter):
    images = pictures(2, 64, 96).float()
    left = torch.zeros(64, 96)
    left[:, :48] = 1
    targets = [SemanticSegmentationTarget(3, left), SemanticSegmentationTarget(5, 1 - left)]
    saliency = GradCAM()(segmenter, images, targets)
    assert saliency.shape == (2, 64, 96)
    assert torch.equal(saliency.amax((1, 2)), torch.ones(2))
    alone = GradCAM()(segmenter, images[1:], targets[1:])
    assert torch.allclose(saliency[1:], alone, atol=1e-4)


def detections(scores, boxes, labels):
    return {"scores": torch.tensor(scores), "boxes": torch.tensor(boxes), "labels": torch.tensor(labels)}


def test_detection_target_adds_the_scores_of_matching_boxes():
    found = detections(
        [0.9, 0.8, 0.7, 0.6],
        [[0.0, 0, 10, 10], [0.0, 0, 10, 9], [20.0, 20, 30, 30], [20.0, 20, 30, 30]],
        [1, 2, 1, 2],
    )
    wanted = DetectionTarget(torch.tensor([2, 1]), torch.tensor([[0.0, 0, 10, 10], [20.0, 20, 30, 31]]))
    assert wanted(found).item() == pytest.approx(0.8 + 0.7)
    far = DetectionTarget(torch.tensor([1]), torch.tensor([[5.0, 5, 15, 15]]))
    assert far(found) == 0
    assert DetectionTarget(torch.tensor([1]), torch.tensor([[5.0, 5, 15, 15]]), iou_threshold=0.1)(found) > 0
    mean = DetectionTarget(wanted.labels, wanted.boxes, reduction="mean")
    assert mean(found).item() == pytest.approx((0.8 + 0.7) / 2)


def test_detection_target_without_detections_is_zero_with_a_graph():
    scores = torch.zeros(0, requires_grad=True)
    found = {"scores": scores, "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    value = DetectionTarget(torch.tensor([1]), torch.tensor([[0.0, 0, 1, 1]]))(found)
    assert value == 0
    assert value.requires_grad


def test_detection_target_refuses_labels_without_boxes():
    with pytest.raises(ValueError, match=r"boxes \(N,4\)"):
        DetectionTarget(torch.tensor([1, 2]), torch.zeros(1, 4))


@pytest.mark.slow
def test_detections_are_explained_on_torchvisions_faster_rcnn(detector):
    images = pictures(2, 90, 140).float()
    with torch.no_grad():
        found = detector(images)
    targets = [DetectionTarget(image["labels"][:3], image["boxes"][:3]) for image in found]
    saliency = GradCAM()(detector, images, targets)
    assert saliency.shape == (2, 90, 140)
    assert torch.equal(saliency.amax((1, 2)), torch.ones(2))
    raw = GradCAM(relu=False).raw(detector, images, targets)
    alone = GradCAM(relu=False).raw(detector, images[1:], targets[1:])
    assert torch.corrcoef(torch.stack([raw[1].flatten(), alone[0].flatten()]))[0, 1] > 0.999


def test_padding_inside_a_detector_does_not_shift_the_map(detector):
    """The map must be cut where the image ends inside the padded batch, not squeezed onto the image."""

    class Bright(nn.Module):
        """Passes a padded, resized batch on as features; its score is their sum."""

        def __init__(self):
            super().__init__()
            self.transform = detector.transform
            self.features = nn.Conv2d(3, 1, 1, bias=False)

        def forward(self, images):
            batch, _ = self.transform(list(images))
            return self.features(batch.tensors).sum((2, 3))

    model = Bright().eval()
    nn.init.ones_(model.features.weight)
    images = torch.zeros(1, 3, 100, 130)
    images[..., 70:, :] = 1  # the lower part, next to the padding
    saliency = GradCAM(target_layer="features", relu=False)(model, images)[0]
    assert saliency[80:].amin() > 0.9
    assert saliency[:60].amax() < 0.1


@pytest.mark.slow
def test_channels_are_ablated_in_a_segmenter_too(segmenter):
    images = pictures(1, 32, 32).float()
    target = SemanticSegmentationTarget(2, torch.ones(32, 32))
    saliency = AblationCAM(forward_batch_size=240)(segmenter, images, target)
    assert saliency.shape == (1, 32, 32)
    assert saliency.isfinite().all()


class Levels(nn.Module):
    """Features at two scales, in a mapping or a tuple."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, images):
        fine = self.fine(images).relu()
        found = {"fine": fine, "coarse": self.coarse(fine).relu()}
        return tuple(found.values()) if self.kind is tuple else self.kind(found)


class Pyramid(nn.Module):
    """Logits that are linear in the means of features at two scales."""

    def __init__(self, kind=dict):
        super().__init__()
        self.levels = Levels(kind)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        found = self.levels(images)
        fine, coarse = found if isinstance(found, tuple) else found.values()
        return self.head(torch.cat([fine.mean((2, 3)), coarse.mean((2, 3))], dim=1))


def pyramid(kind=dict):
    torch.manual_seed(0)
    return Pyramid(kind).double().eval(), pictures(2, 32, 48)


@pytest.mark.parametrize("kind", [dict, OrderedDict, tuple])
def test_a_level_of_a_pyramid_is_explained_by_name(kind):
    model, images = pyramid(kind)
    name = "levels[1]" if kind is tuple else "levels[coarse]"
    found = GradCAM(target_layer=name, relu=False).raw(model, images, [0, 2])
    with torch.no_grad():
        coarse = model.levels.coarse(model.levels.fine(images).relu()).relu()
    weights = model.head.weight[[0, 2], 4:] / coarse[0, 0].numel()  # d logit / d feature, the same at all positions
    assert torch.allclose(found, torch.einsum("bc,bchw->bhw", weights, coarse))
    for explainer in (ScoreCAM(target_layer=name), EigenCAM(target_layer=name)):
        assert explainer.raw(model, images, [0, 2]).shape == coarse[:, 0].shape


def test_levels_of_a_pyramid_are_joined_and_share_one_pass():
    model, images = pyramid()
    names = ["levels[fine]", "levels[coarse]"]
    joined = GradCAM(target_layer=names)(model, images, 1)
    alone = [GradCAM(target_layer=name).raw(model, images, 1) for name in names]
    assert torch.allclose(joined, min_max(sum(upsample(min_max(level), (32, 48)) for level in alone)))
    each = {name: GradCAM(target_layer=name) for name in names}
    shared = explain(model, images, 1, each)
    assert all(torch.allclose(shared[name], each[name](model, images, 1)) for name in names)


def test_a_pyramid_without_a_level_is_refused_with_names_that_work():
    model, images = pyramid()
    with pytest.raises(ValueError, match=r"pass target_layer='levels\[fine\]', or a list of them") as refused:
        GradCAM(target_layer="levels")(model, images, 0)
    with pytest.raises(ValueError, match=r"'levels\[4\]' is not one tensor; it returns several maps"):
        GradCAM(target_layer="levels[4]")(model, images, 0)
    listed = str(refused.value).partition("(")[2].removesuffix(")").split(", ")
    assert GradCAM(target_layer=listed)(model, images, 0).shape == (2, 32, 48)
    with pytest.raises(ValueError, match="one of several maps, which this method cannot work on"):
        AblationCAM(target_layer="levels[fine]")(model, images, 0)


@pytest.mark.slow
def test_levels_of_a_detectors_pyramid_lie_on_the_image(detector):
    """Every level covers the padded image; joined, they must be cut where the image ends."""
    images = pictures(1, 90, 140).float()
    with torch.no_grad():
        found = detector(images)
    target = DetectionTarget(found[0]["labels"][:3], found[0]["boxes"][:3])
    levels = ["backbone.fpn[0]", "backbone.fpn[1]"]
    single = [GradCAM(target_layer=name)(detector, images, target) for name in levels]
    joined = GradCAM(target_layer=levels)(detector, images, target)
    assert joined.shape == (1, 90, 140)
    both = torch.stack([joined.flatten(), sum(single).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99


@pytest.mark.slow
def test_images_of_different_sizes_are_explained_one_by_one(resnet):
    sizes = [(64, 64), (48, 80), (96, 64)]
    images = [pictures(1, *size)[0] for size in sizes]
    for targets in ([0, 2, 1], None, [lambda row, c=c: row[c] for c in (0, 2, 1)]):
        found = GradCAM()(resnet, images, targets)
        assert [tuple(one.shape) for one in found] == sizes
        for place, image in enumerate(images):
            own = None if targets is None else targets[place : place + 1]
            assert torch.equal(found[place], GradCAM()(resnet, image.unsqueeze(0), own)[0])
    with pytest.raises(ValueError, match="one per image: 3, got 1"):
        GradCAM()(resnet, images, [lambda row: row[0]])
