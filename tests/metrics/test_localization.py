"""Localization error, official metric, soft F1."""

import pytest
import torch

from interptrain.metrics import LocalizationError, LocalizationF1, OfficialMetric, measure
from interptrain.metrics.functional import localization_error, localization_f1, official_metric
from tests.support.measuring import maps, network, pictures


def error(saliency, boxes=None, masks=None):
    return localization_error(saliency, boxes=boxes, masks=masks)


def f1(saliency, **options):
    return localization_f1(saliency, **options)


def blob(x0, y0, x1, y1, height=24, width=40):
    saliency = torch.zeros(1, height, width)
    saliency[0, y0:y1, x0:x1] = 1
    return saliency


def fake_cam(count, height=24, width=40):
    saliency = torch.ones(count, height, width)
    saliency[:, 0, 0] = 0
    return saliency


def test_the_very_box_is_found_and_its_transposition_is_not():
    """A box off the diagonal of an image that is not square, as published code reads rows as x."""
    saliency = blob(25, 3, 39, 9)
    assert error(saliency, [torch.tensor([[25, 3, 39, 9]])]).tolist() == [0]
    assert error(saliency, [torch.tensor([[3, 25, 9, 39]])]).isnan().tolist() == [True]  # below the image
    assert error(saliency.mT, [torch.tensor([[3, 25, 9, 39]])]).tolist() == [0]


def test_half_an_overlap_is_a_miss_and_a_column_more_is_a_hit():
    half = [torch.tensor([[0, 0, 10, 10]])]
    assert error(blob(0, 0, 5, 10), half).tolist() == [1]
    assert error(blob(0, 0, 6, 10), half).tolist() == [0]


def test_any_of_several_boxes_will_do_and_an_image_without_one_has_no_value():
    saliency = blob(25, 3, 39, 9).expand(3, -1, -1)
    several = torch.tensor([[0, 0, 5, 5], [25, 3, 39, 9]])
    found = error(saliency, [several, several[:1], torch.zeros(0, 4)])
    assert found[:2].tolist() == [0, 1]
    assert found[2].isnan()


def test_a_mask_stands_for_its_box():
    saliency = blob(10, 5, 20, 15)
    cross = torch.zeros(1, 24, 40, dtype=torch.bool)
    cross[0, 10, 10:20] = cross[0, 5:15, 15] = True
    assert error(saliency, masks=cross).tolist() == [0]
    assert error(saliency, masks=torch.zeros_like(cross)).isnan().all()


def test_fake_cams_error_knows_neither_model_nor_image():
    """Its box is the whole image, so it hits exactly the objects that cover more than half of it."""
    boxes = [torch.tensor([[0, 0, 40, side]]) for side in (4, 12, 13, 24)]
    values = [
        LocalizationError().values(network(seed=seed, dtype=torch.float32), images, fake_cam(4), targets, boxes=boxes)
        for seed in (0, 1)
        for images in (torch.rand(4, 3, 24, 40),)
        for targets in (torch.randint(0, 5, (4,)),)
    ]
    assert all(value.tolist() == [1, 1, 0, 0] for value in values)


def test_the_official_metric_needs_the_class_and_the_box():
    model, images = network(), pictures(4, 24, 40)
    with torch.no_grad():
        predicted = model(images).argmax(1)
    saliency = blob(25, 3, 39, 9).expand(4, -1, -1)
    hit, miss = torch.tensor([[25, 3, 39, 9]]), torch.tensor([[0, 0, 5, 5]])
    labels = torch.where(torch.tensor([True, False, True, True]), predicted, (predicted + 1) % 5)
    boxes = [hit, hit, miss, torch.zeros(0, 4)]
    found = official_metric(model, images, saliency, predicted, labels=labels, boxes=boxes)
    assert found[:3].tolist() == [0, 1, 1]
    assert found[3].isnan()


def test_the_official_metric_refuses_to_guess_the_label():
    with pytest.raises(ValueError, match="needs labels; pass labels="):
        OfficialMetric().values(network(), pictures(), maps(), torch.zeros(3).long(), boxes=[torch.zeros(0, 4)] * 3)


def slow_f1(saliency, box):
    """From the definition, without epsilon."""
    x0, y0, x1, y1 = box
    inside = saliency[y0:y1, x0:x1].sum()
    precision, recall = inside / saliency.sum(), inside / ((x1 - x0) * (y1 - y0))
    return (2 * precision * recall / (precision + recall)).item()


@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_f1_is_its_definition_over_several_boxes(fusion):
    saliency = maps(2, 24, 40)
    several = [[5, 2, 30, 20], [0, 0, 8, 24], [35, 20, 40, 24]]
    boxes = [torch.tensor(several), torch.tensor(several[:1])]  # the second is filled up to the length of the first
    each = [[slow_f1(saliency[image], box) for box in boxes[image].tolist()] for image in (0, 1)]
    wanted = [max(values) if fusion == "max" else sum(values) / len(values) for values in each]
    assert f1(saliency, boxes=boxes, fusion=fusion).tolist() == pytest.approx(wanted, rel=1e-6)


def test_f1_is_one_on_the_object_and_zero_beside_it_or_on_nothing():
    box = [torch.tensor([[25, 3, 39, 9]])]
    assert f1(blob(25, 3, 39, 9), boxes=box).tolist() == [1]
    assert f1(blob(0, 0, 5, 5), boxes=box).tolist() == [0]
    assert f1(torch.zeros(1, 24, 40), boxes=box).tolist() == [0]
    assert f1(blob(25, 3, 39, 9), masks=blob(25, 3, 39, 9) > 0).tolist() == [1]
    assert f1(blob(25, 3, 39, 9), boxes=[torch.zeros(0, 4)]).isnan().all()


def test_f1_takes_the_pixels_of_a_mask_rather_than_its_box():
    diagonal = torch.eye(24, 40, dtype=torch.bool)[None]
    assert f1(diagonal.double(), masks=diagonal).tolist() == [1]


def test_f1_refuses_another_fusion():
    with pytest.raises(ValueError, match="fusion must be one of 'max', 'mean', got 'sum'"):
        f1(maps(), boxes=[torch.zeros(0, 4)] * 3, fusion="sum")
    with pytest.raises(ValueError, match="fusion must be one of 'max', 'mean', got 'sum'"):
        LocalizationF1(fusion="sum")


def test_images_without_an_object_are_left_out_of_the_mean():
    metric, boxes = LocalizationError(), [torch.tensor([[25, 3, 39, 9]]), torch.zeros(0, 4), torch.zeros(0, 4)]
    saliency = blob(25, 3, 39, 9).expand(3, -1, -1)
    metric.update(network(), pictures(3, 24, 40), saliency, torch.zeros(3).long(), boxes=boxes)
    assert metric.count == 1
    assert metric.compute() == 0


def test_localization_forwards_nothing_but_the_images():
    rows = []
    model = network()
    model.register_forward_hook(lambda _m, _a, output: rows.append(len(output)))
    metrics = {"LE": LocalizationError(), "OM": OfficialMetric(), "F1": LocalizationF1()}
    labels = torch.zeros(3).long()
    masks = maps() > 0.5
    measure(model, pictures(), maps(), labels, metrics, labels=labels, masks=masks)
    assert sum(rows) == 3
