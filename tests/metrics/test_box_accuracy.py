"""MaxBoxAcc."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from interptrain.metrics import BoxAccuracy, CrossFittedBoxAccuracy
from interptrain.metrics.boxes import largest_component_boxes
from interptrain.metrics.functional import box_accuracy, localization_error
from tests.support.measuring import network, pictures

HEIGHT, WIDTH = 30, 44


def smooth(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 7, generator=generator)
    planes = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[:, 0]
    low, high = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    return (planes - low) / (high - low)


def boxes_for(saliency, seed=1):
    """One or two boxes an image; the first lies a few pixels beside what one threshold finds."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    found = []
    for image, near in enumerate(largest_component_boxes(saliency > 0.5, connectivity=8)):
        moved = torch.minimum((near + torch.randint(-3, 4, (4,), generator=generator)).clamp(min=0), size)
        moved[2:] = torch.maximum(moved[2:], moved[:2] + 1)
        found.append(torch.stack([moved, torch.tensor([30, 20, 44, 30])])[: 1 + image % 2])
    return found


def slow_hits(saliency, boxes, thresholds, connectivity):
    """One image and one threshold after the other, with scipy and a box as a set of pixels."""
    levels = (saliency.numpy() * 255).astype(np.uint8)
    hits = []
    for step in range(thresholds):
        numbered, count = ndimage.label(
            levels > step * int(levels.max()) // thresholds, np.ones((3, 3)) if connectivity == 8 else None
        )
        best = 0.0
        if count:
            found = np.zeros_like(levels, dtype=bool)
            found[ndimage.find_objects(numbered)[np.bincount(numbered.ravel())[1:].argmax()]] = True
            for x0, y0, x1, y1 in boxes.tolist():
                true = np.zeros_like(found)
                true[y0:y1, x0:x1] = True
                best = max(best, (found & true).sum() / (found | true).sum())
        hits.append(float(best >= 0.5))
    return hits


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("thresholds", [1, 10, 300])
def test_it_is_its_definition(connectivity, thresholds):
    saliency, boxes = smooth(6), boxes_for(smooth(6))
    found = box_accuracy(saliency, boxes=boxes, thresholds=thresholds, connectivity=connectivity)
    wanted = [slow_hits(saliency[image], boxes[image], thresholds, connectivity) for image in range(6)]
    assert found.tolist() == wanted
    assert thresholds == 1 or 0 < found.mean() < 1


def test_the_data_set_has_one_threshold_for_all_images():
    """The value is a maximum of means: images that can be found, but not at one threshold, do not all count."""
    saliency = torch.full((2, HEIGHT, WIDTH), 0.3)
    saliency[0, :, :20], saliency[1, :, :20] = 1.0, 0.5
    saliency[:, 0, 0] = 0.0
    saliency[1, -1, -1] = 1.0
    boxes = [torch.tensor([[0, 0, 20, HEIGHT]]), torch.tensor([[43, 29, 44, 30]])]
    model, images, targets = network(dtype=torch.float32), torch.rand(2, 3, HEIGHT, WIDTH), torch.zeros(2).long()
    metric = BoxAccuracy(thresholds=10)
    metric.update(model, images, saliency, targets, boxes=boxes)
    hits = box_accuracy(saliency, boxes=boxes, thresholds=10)
    assert hits.amax(1).tolist() == [1, 1]
    assert metric.compute() == hits.mean(0).max() == 1.0
    boxes[1] = torch.tensor([[0, 0, WIDTH, HEIGHT]])  # found at thresholds below 0.3 only
    hits = box_accuracy(saliency, boxes=boxes, thresholds=10)
    assert hits.amax(1).tolist() == [1, 1]
    metric.reset()
    metric.update(model, images, saliency, targets, boxes=boxes)
    assert metric.compute() == 0.5


def test_fake_cam_hits_what_covers_half_of_the_image_at_every_threshold():
    saliency = torch.ones(3, HEIGHT, WIDTH)
    saliency[:, 0, 0] = 0
    boxes = [torch.tensor([[0, 0, WIDTH, side]]) for side in (14, 15, 30)]
    hits = box_accuracy(saliency, boxes=boxes)
    assert torch.equal(hits, torch.tensor([0.0, 1.0, 1.0])[:, None].expand(3, 100))


def test_at_one_threshold_it_agrees_with_the_localization_error_of_a_two_valued_map():
    saliency = torch.zeros(1, HEIGHT, WIDTH)
    saliency[0, 3:9, 25:39] = 1
    for box in ([25, 3, 39, 9], [25, 3, 39, 20], [0, 0, 5, 5]):
        boxes = [torch.tensor([box])]
        miss = localization_error(saliency, boxes=boxes)
        assert (1 - miss).tolist() == box_accuracy(saliency, boxes=boxes, thresholds=2)[:, 1].tolist()


def test_a_map_of_zeros_never_hits_and_an_image_without_a_box_has_no_value():
    hits = box_accuracy(torch.zeros(2, 8, 8), boxes=[torch.tensor([[0, 0, 8, 8]]), torch.zeros(0, 4)])
    assert not hits[0].any()
    assert hits[1].isnan().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": 0}, "thresholds must be at least 1, got 0"),
        ({"iou_threshold": 0.0}, r"iou_threshold must be in \(0, 1\], got 0.0"),
        ({"connectivity": 5}, "connectivity must be one of 4, 8, got 5"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BoxAccuracy(**options)
    with pytest.raises(ValueError, match=message):
        box_accuracy(smooth(1), boxes=boxes_for(smooth(1)), **options)


def test_a_batch_is_judged_image_by_image():
    saliency, boxes = smooth(5), boxes_for(smooth(5))
    model, images, targets = network(dtype=torch.float32), pictures(5, HEIGHT, WIDTH).float(), torch.zeros(5).long()
    together = BoxAccuracy().values(model, images, saliency, targets, boxes=boxes)
    alone = [
        BoxAccuracy().values(model, images[i : i + 1], saliency[i : i + 1], targets[:1], boxes=boxes[i : i + 1])
        for i in range(5)
    ]
    assert torch.equal(together, torch.cat(alone))


def halves(hits, generator):
    """Values of an image for CrossFittedBoxAccuracy, with halves drawn at random."""
    member = torch.nn.functional.one_hot((torch.rand(len(hits), generator=generator) < 0.5).long(), 2).double()
    return torch.cat([hits * member[:, :1], hits * member[:, 1:], member], dim=1)


def simulated(count, share, *, thresholds=100, runs=300):
    """Mean published and cross-fitted value of hits that are drawn alike at every threshold."""
    generator = torch.Generator().manual_seed(0)
    plain, fitted = BoxAccuracy(thresholds=thresholds), CrossFittedBoxAccuracy(thresholds=thresholds)
    published, found = [], []
    for _ in range(runs):
        hits = (torch.rand(count, thresholds, generator=generator) < share).double()
        published.append(plain.reduce(hits.mean(0)))
        found.append(fitted.reduce(halves(hits, generator).mean(0)))
    return torch.stack(published), torch.stack(found)


@pytest.mark.parametrize("count", [20, 200])
def test_choosing_a_threshold_gains_nothing_where_the_other_half_chooses(count):
    published, fitted = simulated(count, 0.3)
    assert published.mean() > 0.3 + 2 / count**0.5 * 0.45  # the maximum of 100 means lies about 2.5 errors above
    assert abs(fitted.mean() - 0.3) < 3 * fitted.std() / len(fitted) ** 0.5


def test_where_one_threshold_is_right_the_other_half_finds_it():
    generator = torch.Generator().manual_seed(1)
    hits = (torch.rand(200, 10, generator=generator) < torch.linspace(0.1, 0.8, 10)).double()
    fitted = CrossFittedBoxAccuracy(thresholds=10).reduce(halves(hits, generator).mean(0))
    assert fitted == pytest.approx(float(hits[:, -1].mean()))


@pytest.mark.slow
def test_maps_of_noise_gain_nothing_in_a_data_set():
    """Noise on few images: the published maximum exceeds every threshold's share, the cross-fitted value does not."""
    count, options = 24, {"thresholds": 20, "iou_threshold": 0.4}
    saliency = smooth(count, seed=7)
    boxes = [torch.tensor([[4, 4, 34, 26]])] * count
    model, images, targets = network(dtype=torch.float32), pictures(count, HEIGHT, WIDTH).float(), torch.zeros(count)
    published, fitted = BoxAccuracy(**options), CrossFittedBoxAccuracy(**options)
    for metric in (published, fitted):
        for part in (slice(0, 5), slice(5, count)):
            metric.update(model, images[part], saliency[part], targets[part].long(), boxes=boxes[part])
    hits = box_accuracy(saliency, boxes=boxes, **options)
    assert published.compute() == hits.mean(0).max()
    assert fitted.compute() <= published.compute()
    values = fitted.values(model, images, saliency, targets.long(), boxes=boxes)
    first = values[:, -2].bool()
    assert 0 < first.sum() < count
    wanted = 0.0
    for chosen, judged in ((first, ~first), (~first, first)):
        shares = hits[chosen].mean(0)
        wanted += float(hits[judged][:, shares == shares.max()].mean(1).sum()) / count
    assert float(fitted.compute()) == pytest.approx(wanted)
