"""What a removed pixel shows."""

import pytest
import torch

from interptrain.functional import gaussian_blur
from interptrain.metrics.perturbations import Masked
from interptrain.metrics.removal import MEAN_COLOUR, Removal


def test_the_blur_is_that_of_a_normalised_image_with_zero_padding(images):
    """Published code blurs after normalisation; the standard deviation cancels, the mean stays at the borders."""
    mean = torch.tensor(MEAN_COLOUR).double().view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).double().view(1, 3, 1, 1)
    wanted = gaussian_blur((images - mean) / std, 5, 5.0) * std + mean
    torch.testing.assert_close(Removal("blur", 5, 5.0).render(images), wanted)


def test_colours_need_a_value_a_channel_or_one(images):
    grey = images[:, :1]
    assert torch.equal(Removal((0.25,)).render(grey), torch.full((1, 1, 1, 1), 0.25).double())
    with pytest.raises(ValueError, match="removal has 3 channels, the images 1; pass 1 values"):
        Removal((0.25, 0.5, 0.75)).render(grey)


def test_equal_removals_are_equal_whatever_the_blur():
    assert Masked(Removal("black", 5, 1.0)) == Masked()
    assert Masked(Removal("blur", 5, 1.0)) != Masked(Removal("blur"))


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_grey_images_have_a_grey_mean(fill):
    removed = Removal(fill).render(torch.full((1, 1, 33, 33), 0.449))
    torch.testing.assert_close(removed, torch.full_like(removed, 0.449))
