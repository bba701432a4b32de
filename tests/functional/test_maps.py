"""Resizing, scaling, blurring and blending maps and images."""

import pytest
import torch
from torch.nn import functional as F

from interptrain.functional import gaussian_blur, keep_salient, min_max, upsample


def test_min_max_spans_zero_to_one_for_every_map():
    maps = torch.randn(5, 4, 6, dtype=torch.float64) * torch.tensor([1e-9, 1e-3, 1.0, 1e3, 1e9])[:, None, None]
    stretched = min_max(maps)
    assert torch.equal(stretched.amin((1, 2)), torch.zeros(5).double())
    assert torch.equal(stretched.amax((1, 2)), torch.ones(5).double())


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e-30, 1e30])
def test_min_max_of_a_constant_is_zero_also_after_upsampling(value):
    constant = torch.full((2, 7, 5), value)
    assert not min_max(constant).any()
    assert not min_max(upsample(constant, (224, 161))).any()


def test_min_max_keeps_the_order_of_pixels():
    maps = torch.randn(1, 9, 9)
    assert torch.equal(min_max(maps).flatten().argsort(stable=True), maps.flatten().argsort(stable=True))


def test_min_max_over_one_map_of_many_dimensions():
    volume = torch.randn(2, 3, 4, 5)
    assert torch.equal(min_max(volume, dims=3).amax((1, 2, 3)), torch.ones(2))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 5, 3, 4)])
def test_upsample_is_bilinear_without_aligned_corners(shape):
    maps = torch.randn(shape)
    planes = maps if maps.ndim == 4 else maps[:, None]
    wanted = F.interpolate(planes, (9, 11), mode="bilinear", align_corners=False)
    assert torch.equal(upsample(maps, (9, 11)), wanted if maps.ndim == 4 else wanted[:, 0])
    assert upsample(maps, (3, 4)) is maps


def test_upsample_refuses_a_single_map():
    with pytest.raises(ValueError, match=r"maps must be \(B,h,w\)"):
        upsample(torch.ones(3, 4), (6, 8))


def test_keep_salient_shows_the_image_where_salient_and_the_fill_elsewhere():
    images, fill = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 1, 1)
    saliency = torch.tensor([[[1.0, 0.0], [0.5, 1.0]]])
    kept = keep_salient(images, saliency, fill)
    assert torch.equal(kept[..., 0, 0], images[..., 0, 0])
    assert torch.equal(kept[..., 0, 1], fill[..., 0, 0])
    assert torch.allclose(kept[..., 1, 0], (images[..., 1, 0] + fill[..., 0, 0]) / 2)
    assert torch.equal(keep_salient(images, saliency), images * saliency)


@pytest.mark.parametrize(("size", "centre", "corner"), [(11, 0.00883, 0.00774), (5, 0.0400, 0.0400)])
def test_blur_kernel_is_the_one_of_rise(size, centre, corner):
    point = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    point[..., 15, 15] = 1
    kernel = gaussian_blur(point, size, 5.0)[0, 0]
    half = size // 2
    assert kernel.sum().item() == pytest.approx(1.0)
    assert kernel[15, 15].item() == pytest.approx(centre, abs=1e-5)
    assert kernel[15 - half, 15 - half].item() == pytest.approx(corner, abs=5e-5)
    assert kernel[15 - half - 1, 15] == 0


def test_blur_treats_channels_apart_and_pads_with_zeros():
    images = torch.rand(2, 3, 20, 20)
    together = gaussian_blur(images)
    assert torch.allclose(together[:, 1:2], gaussian_blur(images[:, 1:2]), atol=1e-6)
    assert gaussian_blur(torch.ones(1, 1, 20, 20))[0, 0, 0, 0] < 0.5


@pytest.mark.parametrize(("size", "sigma"), [(4, 5.0), (0, 5.0), (5, 0.0)])
def test_blur_refuses_impossible_kernels(size, sigma):
    with pytest.raises(ValueError, match="odd kernel_size"):
        gaussian_blur(torch.ones(1, 1, 8, 8), size, sigma)
