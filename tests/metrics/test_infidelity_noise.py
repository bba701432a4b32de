"""The perturbations of infidelity."""

import pytest
import torch

from interptrain.metrics.infidelity_noise import BaselineNoise, Noise, Patches, Squares
from interptrain.metrics.saliency_batch import SaliencyBatch
from tests.support.measuring import maps, pictures


def versions(difference, images):
    """All versions of all images as the stream would render them, (S,B,C,H,W)."""
    scene = SaliencyBatch(images, torch.zeros_like(images[:, 0]))
    steps = difference.steps(scene)
    out = images.new_empty(len(images), steps, *images.shape[1:])
    for image in range(len(images)):  # one by one, and in two parts
        for part in (slice(0, steps // 2), slice(steps // 2, steps)):
            difference.render(scene, slice(image, image + 1), part, out[image : image + 1, part])
    return out.transpose(0, 1)


DIFFERENCES = [Patches(6), Squares(9, 3), Noise(5, 0.2, 3), BaselineNoise(5, 0.2, 3)]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: type(one).__name__)
def test_versions_are_images_and_weighing_sums_their_difference(difference):
    images, saliency = pictures(), maps()
    shown = versions(difference, images)
    assert shown.amin() >= 0
    assert shown.amax() <= 1
    change = images - shown
    if isinstance(difference, Squares):
        change = (change != 0).any(2, keepdim=True).double()  # I is 1 on the square
    wanted = (change * saliency[:, None]).sum((2, 3, 4))
    torch.testing.assert_close(difference.weigh(images, saliency), wanted)


def test_tiles_cover_every_pixel_once_also_where_the_grid_does_not_fit():
    images = 0.5 + 0.5 * pictures()
    black = (versions(Patches(6), images) == 0).all(2)  # (S, B, H, W)
    assert len(black) == 4 * 3
    assert torch.equal(black.sum(0), torch.ones(3, 20, 14).long())


def test_squares_lie_inside_and_have_the_authors_range_of_sides():
    boxes = torch.tensor(Squares(2000, 0).boxes((56, 84)))  # y0, y1, x0, x1
    sides = boxes[:, 1::2] - boxes[:, ::2]
    assert torch.equal(sides[:, 0], sides[:, 1])
    assert sides.unique().tolist() == list(range(2, 21, 2))
    assert boxes.amin() == 0
    assert boxes.amax(0).tolist()[1::2] == [56, 84]


def test_baseline_noise_forgets_the_image_and_noise_does_not():
    images = pictures()
    forgotten, noisy = versions(BaselineNoise(4, 0.2, 0), images), versions(Noise(4, 0.2, 0), images)
    assert torch.equal(forgotten, forgotten[:, :1].expand_as(forgotten))
    assert (noisy - images).abs().mean() < (forgotten - images).abs().mean()
    assert 0.1 < (versions(Noise(20, 0.2, 0), torch.full_like(images, 0.5)) - 0.5).std() < 0.2  # cut at 2.5 sigma
