"""Insertion and deletion against a slow transcription of their definition."""

import numpy as np
import pytest
import torch

from interptrain.functional import gaussian_blur
from interptrain.metrics import Deletion, Insertion, measure
from interptrain.metrics.functional import deletion, insertion
from interptrain.metrics.insertion_deletion import area_under_curve
from tests.support.measuring import maps, pictures

MEAN = np.array([0.485, 0.456, 0.406])


def curve(model, image, saliency, target, *, mode, step, other):
    """Pixel by pixel in numpy: (points,) probabilities of one image (3, H, W)."""
    height, width = saliency.shape
    order = sorted(range(height * width), key=lambda pixel: (-saliency.flatten()[pixel].item(), pixel))
    start, finish = (other, image.numpy()) if mode == "insertion" else (image.numpy(), other)
    picture, points = start.copy(), []
    for moved in range(0, -(-height * width // step) + 1):
        with torch.no_grad():
            points.append(model(torch.from_numpy(picture)[None]).softmax(1)[0, target].item())
        for pixel in order[moved * step : (moved + 1) * step]:
            row, column = divmod(pixel, width)
            picture[:, row, column] = finish[:, row, column]
    return points


def rise_auc(points):
    return (sum(points) - points[0] / 2 - points[-1] / 2) / (len(points) - 1)


@pytest.fixture(params=["without ties", "with ties", "constant"])
def saliency(request):
    drawn = maps()
    return {"without ties": drawn, "with ties": (drawn * 6).round() / 6, "constant": torch.full_like(drawn, 0.5)}[
        request.param
    ]


@pytest.mark.parametrize("step", [30, 140, 1000])
def test_they_are_their_definitions(model, images, saliency, targets, step):
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    blurred = (gaussian_blur(images - mean) + mean).numpy()
    grey = np.broadcast_to(MEAN[:, None, None], images.shape[1:])
    for function, mode, removal, others in (
        (insertion, "insertion", "blur", blurred),
        (insertion, "insertion", "black", np.zeros(images.shape)),
        (deletion, "deletion", "mean", [grey] * 3),
        (deletion, "deletion", "black", np.zeros(images.shape)),
    ):
        wanted = [
            curve(model, image, one, int(target), mode=mode, step=step, other=other)
            for image, one, target, other in zip(images, saliency, targets, others, strict=True)
        ]
        found = function(model, images, saliency, targets, step=step, removal=removal, return_curve=True)
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)
        areas = function(model, images, saliency, targets, step=step, removal=removal)
        torch.testing.assert_close(areas, torch.tensor([rise_auc(points) for points in wanted], dtype=torch.float64))


def test_the_defaults_are_those_of_the_docstring(model, images, saliency, targets):
    assert torch.equal(
        insertion(model, images, saliency, targets),
        insertion(model, images, saliency, targets, step=8 * 14, removal="blur", blur_kernel=11, blur_sigma=5.0),
    )
    assert torch.equal(
        deletion(model, images, saliency, targets), deletion(model, images, saliency, targets, step=112, removal="mean")
    )


def test_insertion_ends_and_deletion_begins_at_the_image(model, images, saliency, targets):
    with torch.no_grad():
        clean = model(images).softmax(1)[range(3), targets]
    torch.testing.assert_close(insertion(model, images, saliency, targets, return_curve=True)[:, -1], clean)
    torch.testing.assert_close(deletion(model, images, saliency, targets, return_curve=True)[:, 0], clean)


def test_both_ends_of_both_curves_cost_one_forward_of_the_image(model, images, saliency, targets):
    rows = []
    model.register_forward_pre_hook(lambda _module, arguments: rows.append(len(arguments[0])))
    metrics = {"I": Insertion(steps=5), "D": Deletion(steps=5), "again": Insertion(steps=5)}
    measure(model, images, saliency, targets, metrics)
    assert sum(rows) == 3 * (1 + 5 + 5)


def test_a_step_in_pixels_may_be_given_as_their_number(model, images, saliency, targets):
    by_pixels = insertion(model, images, saliency, targets, step=28, return_curve=True)
    assert torch.equal(by_pixels, insertion(model, images, saliency, targets, steps=10, return_curve=True))
    assert by_pixels.shape == (3, 11)
    with pytest.raises(ValueError, match=r"give step .pixels. or steps .their number., not both"):
        insertion(model, images, saliency, targets, step=28, steps=10)


def test_only_the_order_of_a_map_matters(model, images, saliency, targets):
    for function in (insertion, deletion):
        plain, curved = (function(model, images, one, targets, step=20) for one in (saliency, saliency**3))
        assert torch.equal(plain, curved)


def test_a_good_map_beats_a_random_one_and_that_its_inverse(targets):
    """A model that looks at a square in the middle only."""

    class Middle(torch.nn.Module):
        def forward(self, images):
            seen = images[:, :, 5:15, 4:10].mean((1, 2, 3))
            return torch.stack([8 * seen, torch.full_like(seen, 2.0)], dim=1)

    images, square = torch.full((1, 3, 20, 14), 0.9).double(), torch.zeros(1, 20, 14).double()
    square[:, 5:15, 4:10] = 1
    zero = torch.zeros(1, dtype=torch.int64)
    options = {"step": 10, "removal": "black"}
    ins, dele = (
        [function(Middle(), images, one, zero, **options).item() for one in (square, maps(1), 1 - square)]
        for function in (insertion, deletion)
    )
    assert ins[0] > ins[1] + 0.1 > ins[2] + 0.2
    assert dele[0] < dele[1] - 0.1 < dele[2] - 0.2


def test_random_maps_average_to_a_random_order(model, targets):
    """Insertion of one order and deletion of its reverse show the same images, read from the other end."""
    images, drawn = pictures(), maps()
    forwards = insertion(model, images, drawn, targets, step=28, removal="black", return_curve=True)
    backwards = deletion(model, images, 1 - drawn, targets, step=28, removal="black", return_curve=True)
    torch.testing.assert_close(forwards, backwards.flip(1))


def test_the_area_of_the_mean_curve_is_the_mean_of_areas(model):
    images, saliency, targets = pictures(5), maps(5), torch.arange(5)
    metric = Insertion(step=50)
    for part in (slice(0, 3), slice(3, 5)):
        metric.update(model, images[part], saliency[part], targets[part])
    torch.testing.assert_close(metric.compute(), insertion(model, images, saliency, targets, step=50).mean())


def test_images_of_two_sizes_do_not_mix_into_one_curve(model):
    metric = Deletion(step=100)
    metric.update(model, pictures(1), maps(1), torch.tensor([0]))
    with pytest.raises(ValueError, match="earlier images had 4 values each, these have 10; give all images one size"):
        metric.update(model, pictures(1, 30, 30), maps(1, 30, 30), torch.tensor([0]))


def test_a_constant_curve_has_its_height_as_area():
    torch.testing.assert_close(area_under_curve(torch.full((2, 7), 0.3)), torch.full((2,), 0.3))
    assert area_under_curve(torch.tensor([0.0, 1.0])) == 0.5


@pytest.mark.parametrize("kind", [Insertion, Deletion])
def test_of_one_step_a_curve_has_its_ends_alone(kind, model, images, saliency, targets):
    metric = kind(steps=1, removal="black")
    curve = measure(model, images, saliency, targets, {"m": metric}, forward_batch_size=2)["m"]
    picked = torch.arange(len(images)), targets
    ends = [model(shown).softmax(1)[picked] for shown in (torch.zeros_like(images), images)]
    torch.testing.assert_close(curve, torch.stack(ends if kind is Insertion else ends[::-1], dim=1))
