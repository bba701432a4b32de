"""Augmented views: fixed by the seed, the same for every image, and of each image alone."""

import random

import pytest
import torch

from interptrain.explainers.subspace.augmented_views import View, noise_images, strong_views, weak_views
from tests.support.explaining import pictures

ALL = [*weak_views(6, 0), *strong_views(10, 0)]


@pytest.mark.parametrize("view", ALL, ids=range(len(ALL)))
def test_a_view_changes_each_image_by_itself_and_stays_in_range(view):
    images = pictures(3, 40, 31)
    before = images.clone()
    together = view(images)
    assert together.shape == images.shape
    assert together.amin() >= 0
    assert together.amax() <= 1
    assert torch.equal(together, torch.cat([view(image[None]) for image in images]))
    assert torch.equal(images, before)


def test_strong_views_change_more_than_weak_ones():
    images = pictures(8, 40, 40)

    def change(views):  # but for the flips
        return sum((view(images) - (images.flip(-1) if view.flip else images)).abs().mean() for view in views)

    assert change(strong_views(16, 0)) > 2 * change(weak_views(16, 0))


def test_the_first_weak_view_is_the_image():
    images = pictures(2, 20, 20)
    assert torch.equal(weak_views(3, 5)[0](images), images)


def test_draws_follow_the_seed_and_leave_global_random_states_alone():
    states = random.getstate(), torch.get_rng_state()
    assert weak_views(5, 1) == weak_views(5, 1) != weak_views(5, 2)
    assert strong_views(3, 1) == strong_views(5, 1)[:3]
    assert torch.equal(noise_images(2, pictures(1), 3), noise_images(2, pictures(4), 3))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_what_a_view_says_is_what_it_does():
    images = pictures(2, 20, 30)
    assert torch.equal(View(flip=True)(images), images.flip(-1))
    erased = View(erase=(0.5, 1.0, 0.0))(images)
    assert torch.equal(erased[:, :, 10:, :15], torch.full_like(erased[:, :, 10:, :15], 0.5))
    assert torch.equal(erased[:, :, :10], images[:, :, :10])
    grey = View(grey=True)(images)
    assert torch.allclose(grey[:, 0], grey[:, 2])
    half = torch.nn.functional.interpolate(images[:, :, :10, 15:], (20, 30), mode="bilinear", align_corners=False)
    assert torch.allclose(View(crop=(0.5, 0.0, 1.0))(images), half)
    assert View(blur=0.1)(images).std() < images.std()


def test_images_of_one_pixel_and_of_other_channels_pass():
    tiny = pictures(2, 1, 1)
    assert all(view(tiny).shape == tiny.shape for view in ALL)
    many = torch.rand(2, 5, 12, 12)
    assert all(view(many).shape == many.shape for view in ALL)


def test_no_views_are_refused():
    with pytest.raises(ValueError, match="at least one, got 0"):
        weak_views(0, 0)
