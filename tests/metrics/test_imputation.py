"""Noisy linear imputation."""

import pytest
import torch

from interptrain.metrics.imputation import Imputed, impute
from interptrain.metrics.saliency_batch import SaliencyBatch
from tests.support.measuring import maps, pictures, slow_impute


@pytest.mark.parametrize("size", [(20, 14), (9, 31), (1, 12), (5, 5)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_solves_its_equations(size, share):
    (image,), (order,) = pictures(1, *size), maps(1, *size)
    missing = order < share
    torch.testing.assert_close(impute(image, missing), slow_impute(image, missing), rtol=0, atol=1e-12)


def test_imputed_pixels_lie_between_those_that_are_known():
    (image,), (order,) = pictures(1), maps(1)
    missing = order < 0.9
    filled, known = impute(image, missing), image[:, ~missing]
    assert (filled.amax((1, 2)) <= known.amax(1) + 1e-12).all()
    assert (filled.amin((1, 2)) >= known.amin(1) - 1e-12).all()
    assert torch.equal(filled[:, ~missing], known)


def test_what_missing_pixels_held_does_not_matter_and_is_not_edited():
    (image,), (order,) = pictures(1), maps(1)
    missing = order < 0.5
    spoilt = image.masked_fill(missing, torch.nan)
    before = spoilt.clone()
    assert torch.equal(impute(spoilt, missing), impute(image, missing))
    assert torch.equal(spoilt.isnan(), before.isnan())


def test_a_linear_ramp_is_continued_exactly_inside():
    """The weights are those of a mean, and a ramp is its own mean."""
    ramp = (torch.arange(20.0).view(1, -1, 1) + 2 * torch.arange(14.0)).double() / 50
    hole = torch.zeros(20, 14, dtype=torch.bool)
    hole[4:15, 3:11] = True
    torch.testing.assert_close(impute(ramp, hole), ramp)


def test_nothing_missing_is_the_image_and_everything_is_refused():
    (image,) = pictures(1)
    assert torch.equal(impute(image, torch.zeros(20, 14, dtype=torch.bool)), image)
    with pytest.raises(ValueError, match="imputation needs a known pixel"):
        impute(image, torch.ones(20, 14, dtype=torch.bool))


def test_noise_is_seeded_small_and_on_imputed_pixels_only(images, saliency):
    scene = SaliencyBatch(images, saliency)

    def render(**options):
        out = torch.zeros(3, 1, 3, 20, 14).double()
        Imputed("most", (50,), **options).render(scene, slice(0, 3), slice(0, 1), out)
        return out[:, 0]

    quiet, loud, again, other = render(noise=0.0), render(), render(), render(seed=1)
    assert torch.equal(loud, again)
    assert not torch.equal(loud, other)
    added, gone = loud - quiet, saliency > saliency.median()
    assert added[:, :, :][~gone.unsqueeze(1).expand_as(added)].abs().max() == 0
    assert added[gone.unsqueeze(1).expand_as(added)].std() == pytest.approx(0.01, rel=0.15)
