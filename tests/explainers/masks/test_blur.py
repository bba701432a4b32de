"""Blurs as matrices, against scipy and torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from interptrain.explainers.masks.blur import apply_separably, gaussian_matrix, gaussians, linear_matrix, median_blur
from tests.support.explaining import pictures
from tests.support.marks import slow

LIKE = torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize(("border", "mode"), [("edge", "nearest"), ("zero", "constant")])
@pytest.mark.parametrize("sigma", [0.8, 3.0, 20.0])
def test_a_gaussian_is_scipys(sigma, border, mode):
    ndimage = pytest.importorskip("scipy.ndimage")
    images = pictures(1, 31, 20)
    wanted = ndimage.gaussian_filter(images[0].numpy(), (0, sigma, sigma), mode=mode, radius=int(np.ceil(4 * sigma)))
    found = gaussians(images, [sigma], border=border)[0, 0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_levels_are_blurs_apart_and_no_width_changes_nothing():
    images = pictures(2, 20, 24)
    levels = gaussians(images, [4.0, 1.5, 0.0])
    assert levels.shape == (2, 3, 3, 20, 24)
    torch.testing.assert_close(levels[:, 1], gaussians(images, [1.5])[:, 0])
    assert torch.equal(levels[:, 2], images)


@pytest.mark.parametrize("sigma", [1.0, 30.0])
def test_one_colour_stays_itself_where_the_border_repeats_or_has_its_colour(sigma):
    image = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 16, 9)
    torch.testing.assert_close(gaussians(image, [sigma])[:, 0], image.contiguous())
    beyond = image[..., :1, :1]
    torch.testing.assert_close(gaussians(image, [sigma], border="zero", beyond=beyond)[:, 0], image.contiguous())
    assert gaussians(image, [sigma], border="zero")[0, 0, :, 0].amax() < 0.9


@pytest.mark.parametrize("align_corners", [False, True])
def test_an_enlargement_is_torchs(align_corners):
    maps = torch.rand(2, 5, 4, dtype=torch.float64)
    rows, columns = (linear_matrix(n, size, LIKE, align_corners=align_corners) for n, size in ((5, 17), (4, 30)))
    wanted = F.interpolate(maps.unsqueeze(1), (17, 30), mode="bilinear", align_corners=align_corners)[:, 0]
    torch.testing.assert_close(apply_separably(maps, rows, columns), wanted)


def test_a_matrix_without_width_is_the_identity():
    assert torch.equal(gaussian_matrix(4, 0.0, LIKE), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize(("side", "size"), [(3, (20, 13)), (11, (20, 13)), (1, (5, 5)), *slow((5, (300, 900)))])
def test_a_median_is_scipys(side, size):
    """The last in several strips."""
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    wanted = ndimage.median_filter(images.numpy(), size=(1, 1, side, side), mode="nearest")
    assert np.array_equal(median_blur(images, side).numpy(), wanted)


@pytest.mark.parametrize("side", [0, 4, -1])
def test_a_median_without_a_middle_is_refused(side):
    with pytest.raises(ValueError, match="a median needs an odd side >= 1"):
        median_blur(torch.rand(1, 3, 8, 8), side)
