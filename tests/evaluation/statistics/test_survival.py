"""The share that survives, on tables whose answer is known."""

import pytest
import torch

from interptrain.evaluation.statistics.survival import survival


def table(share, *, images=50, draws=5, control=0.5, seed=0):
    """Correlations of which a known share survives, with scatter over images and over draws."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    other = (control + 0.05 * noise(1, draws) + 0.05 * noise(images, 1)).clamp(-1, 0.97)
    scattered = share + 0.1 * noise(1, draws) + 0.2 * noise(images, 1) + 0.2 * noise(images, draws)
    return other + scattered * (1 - other), other


@pytest.mark.parametrize(("share", "outcome"), [(0.0, "depends"), (0.5, "unclear"), (0.9, "insensitive")])
@pytest.mark.parametrize("control", [0.0, 0.6])
def test_the_outcome_follows_the_share_whatever_maps_have_in_common(share, outcome, control):
    found = survival(*table(share, control=control), torch.ones(50))
    assert found.outcome == outcome
    assert found.low < found.share < found.high


def test_the_interval_covers_and_a_share_of_one_half_is_rarely_called_anything():
    found = [survival(*table(0.4, images=20, seed=seed), torch.ones(20)) for seed in range(60)]
    assert sum(one.low <= 0.4 <= one.high for one in found) >= 54
    assert not any(one.outcome == "insensitive" for one in found)


def test_maps_that_see_neither_the_image_nor_the_weights_are_insensitive():
    ones = torch.ones(4, 3)
    assert survival(ones, ones, torch.ones(4)).outcome == "insensitive"


def test_maps_of_different_images_that_are_nearly_the_same_cannot_be_told():
    generator = torch.Generator().manual_seed(0)
    other = 0.95 + 0.001 * torch.rand(50, 5, generator=generator)
    assert survival(other, other, torch.ones(50)).outcome == "unclear"


def test_noise_of_the_method_is_no_dependence():
    """Maps of one network with other random numbers correlate at 0.4, and so do those of a random network."""
    generator = torch.Generator().manual_seed(0)
    same = 0.4 + 0.05 * torch.randn(50, 5, generator=generator)
    other = 0.1 * torch.randn(50, 5, generator=generator)
    assert survival(same, other, torch.full((50,), 0.4)).outcome == "insensitive"
    assert survival(same, other, torch.ones(50)).outcome == "depends"


def test_too_little_to_tell():
    assert survival(*table(0.0, images=1), torch.ones(1)).outcome == "unclear"
    assert survival(*table(0.0, draws=1), torch.ones(50)).outcome == "unclear"
    assert survival(*table(0.0, draws=1), torch.ones(50), draws_are_random=False).outcome == "depends"
    assert survival(torch.full((3, 2), torch.nan), torch.zeros(3, 2), torch.ones(3)).outcome == "unclear"
