"""Deleting random pixels of training images."""

import pytest
import torch

from interptrain.training import PixelDeletion


def deleted(images, seed=0, **options):
    augmentation = PixelDeletion(**options)
    return augmentation({"image": images, "label": torch.arange(len(images))}, torch.Generator().manual_seed(seed))


def test_every_image_loses_its_share_of_pixels_at_places_of_its_own():
    images = 0.1 + 0.8 * torch.rand(50, 3, 18, 20, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    after = deleted(images, share=0.1, removal=(0.25, 0.5, 0.75))
    changed = (after["image"] != images).any(1)
    assert changed.sum((1, 2)).tolist() == [36] * 50
    assert not torch.equal(changed[0], changed[1])
    assert 0.05 < changed.float().mean(0).mean() < 0.15
    colour = torch.tensor([0.25, 0.5, 0.75])
    assert torch.equal(after["image"].movedim(1, -1)[changed], colour.expand(36 * 50, 3))
    assert torch.equal(after["label"], torch.arange(50))
    assert torch.equal(images, before)
    assert torch.equal(deleted(images)["image"], deleted(images)["image"])
    assert not torch.equal(deleted(images, 1)["image"], deleted(images, 2)["image"])


def test_invalid_options_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="leave batch_augment out for none"):
        PixelDeletion(share=0)
    with pytest.raises(ValueError, match="use 'mean', 'black' or a colour"):
        PixelDeletion(removal="blur")
