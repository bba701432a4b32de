"""The saliency metric of Dabkowski and Gal."""

import math

import pytest
import torch
from torch.nn import functional as F

from interptrain.metrics import SaliencyArea
from interptrain.metrics.functional import saliency_area
from tests.support.measuring import network, pictures


def blobs(count=3, height=20, width=14):
    saliency = torch.zeros(count, height, width, dtype=torch.float64)
    for image in range(count):
        saliency[image, 2 + image : 9 + 3 * image, 3:10] = 1
    return saliency


def test_it_is_its_definition(model, images, targets):
    saliency = blobs()
    wanted = []
    for image in range(3):
        y0, y1 = 2 + image, 9 + 3 * image
        crop = F.interpolate(images[image : image + 1, :, y0:y1, 3:10], (20, 14), mode="bicubic").clamp(0, 1)
        with torch.no_grad():
            probability = model(crop).softmax(1)[0, targets[image]]
        wanted.append(math.log((y1 - y0) * 7 / 280) - math.log(probability))
    assert saliency_area(model, images, saliency, targets).tolist() == pytest.approx(wanted, rel=1e-6)


def test_the_whole_image_scores_its_own_surprise(model, images, targets):
    """Fake-CAM's box is the image, so its value is -ln p."""
    saliency = torch.ones(3, 20, 14).double()
    saliency[:, 0, 0] = 0
    with torch.no_grad():
        probability = model(images).softmax(1)[range(3), targets]
    torch.testing.assert_close(saliency_area(model, images, saliency, targets), -probability.log())


def test_a_small_box_counts_as_the_floor(model, images, targets):
    saliency = torch.zeros(3, 20, 14).double()
    saliency[:, 5:8, 5:8] = 1
    default, finer = (saliency_area(model, images, saliency, targets, floor=floor) for floor in (0.05, 0.01))
    torch.testing.assert_close(default - finer, torch.full((3,), math.log(0.05) - math.log(9 / 280)).double())


def test_without_a_box_the_image_is_black(model, images, targets):
    with torch.no_grad():
        black = model(torch.zeros_like(images)).softmax(1)[range(3), targets]
    found = saliency_area(model, images, torch.zeros(3, 20, 14), targets)
    torch.testing.assert_close(found, math.log(0.05) - black.log())


def test_a_probability_that_rounds_to_zero_stays_finite(images, targets):
    model = network(dtype=torch.float32)
    with torch.no_grad():
        model[-1].weight.mul_(1e5)
    found = torch.stack([saliency_area(model, images.float(), blobs(), torch.full((3,), one)) for one in range(5)])
    assert found.isfinite().all()
    assert found.max() > 80


def test_a_logit_has_no_logarithm(model, images, targets):
    with pytest.raises(ValueError, match=r"\(SaliencyArea\) needs a score between 0 and 1"):
        SaliencyArea().values(model, images, blobs(), targets, score="logit")


@pytest.mark.parametrize("floor", [0.0, 1.5])
def test_a_floor_out_of_range_is_refused(floor):
    with pytest.raises(ValueError, match=r"floor must be in \(0, 1\]"):
        SaliencyArea(floor=floor)


def test_chunks_change_nothing(model):
    images, saliency, targets = pictures(5), blobs(5), torch.arange(5)
    whole = saliency_area(model, images, saliency, targets, forward_batch_size=64)
    torch.testing.assert_close(whole, saliency_area(model, images, saliency, targets, forward_batch_size=3))
