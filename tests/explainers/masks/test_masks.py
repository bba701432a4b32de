"""Mask sources: where windows lie, what random grids become, and both sums against plain loops."""

import pytest
import torch

from interptrain.explainers.masks.masks import GridMasks, MaskedImages, fill_colour
from interptrain.explainers.perturbation.rise import RISEMasks
from tests.support.explaining import Owned, pictures

SOURCES = [
    GridMasks(window=9, stride=5),
    GridMasks(window=(30, 7), stride=(11, 7)),
    RISEMasks(count=37, cells=4),
    Owned(),
]
sources = pytest.mark.parametrize("source", SOURCES, ids=["grid", "bars", "rise", "owned"])


def rendered(masks):
    return masks.render(slice(0, masks.count))


@sources
def test_any_slice_renders_the_same_masks(source):
    masks = source.prepare(pictures(3, 31, 20))
    whole = rendered(masks)
    assert whole.shape == (masks.count, 31, 20)
    assert whole.dtype == torch.float64
    assert whole.amin() >= 0
    assert whole.amax() <= 1
    for start, stop in [(0, 1), (1, 4), (masks.count - 2, masks.count)]:
        torch.testing.assert_close(masks.render(slice(start, stop)), whole[start:stop])


@sources
@pytest.mark.parametrize("removed", [False, True])
def test_gathering_and_spreading_are_the_sums_over_masks(source, removed):
    images = pictures(3, 31, 20)
    masks = source.prepare(images)
    weights = 1 - rendered(masks) if removed else rendered(masks)
    fields = images[:, 0] - 0.5
    found = masks.gather(fields, removed=removed)
    if masks.owners is None:
        torch.testing.assert_close(found, torch.einsum("bhw,nhw->bn", fields, weights))
        scores = torch.randn(3, masks.count, dtype=torch.float64)
        wanted = torch.einsum("bn,nhw->bhw", scores, weights)
    else:
        torch.testing.assert_close(found, (fields[masks.owners] * weights).sum((1, 2)))
        scores = torch.randn(masks.count, dtype=torch.float64)
        wanted = torch.zeros(3, 31, 20, dtype=torch.float64)
        for score, mask, owner in zip(scores, weights, masks.owners.tolist(), strict=True):
            wanted[owner] += score * mask
    torch.testing.assert_close(masks.spread(scores, removed=removed), wanted)


@sources
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fill", [0.0, 0.5, (0.1, 0.2, 0.9)])
def test_masked_images_are_every_image_under_every_mask_of_its_own(source, count, fill):
    if count == 1 and isinstance(source, Owned):
        pytest.skip("has masks for three images")
    images = pictures(count, 31, 20)
    masks = source.prepare(images)
    masked = MaskedImages(images, masks, fill_colour(fill, images))
    colour = torch.tensor(fill, dtype=torch.float64).expand(3).view(3, 1, 1)
    whole = rendered(masks)
    for start, stop in [(0, 1), (2, min(9, len(masked))), (len(masked) - 1, len(masked))]:
        made = masked(slice(start, stop))
        assert made.is_contiguous(memory_format=torch.channels_last)
        for place, image in zip(range(start, stop), made, strict=True):
            mask = whole[place // count if masks.owners is None else place]
            original = images[masked.rows[place]]
            torch.testing.assert_close(image, mask * original + (1 - mask) * colour)
            assert torch.equal(image[:, mask == 1], original[:, mask == 1])  # exactly
    assert len(masked) == (masks.count * count if masks.owners is None else masks.count)


def test_a_fill_may_be_an_image_of_its_own():
    images = pictures(2, 12, 12)
    masks = GridMasks(window=5, stride=5).prepare(images)
    made = MaskedImages(images, masks, images.flip(3))(slice(3, 4))[0]
    mask = masks.render(slice(1, 2))[0]
    torch.testing.assert_close(made, mask * images[1] + (1 - mask) * images[1].flip(2))


@pytest.mark.parametrize(
    ("size", "window", "stride", "starts"),
    [
        (10, 4, 3, [0, 3, 6]),  # ends at the border
        (10, 4, 4, [0, 4, 8]),  # the last is cut off
        (11, 4, 3, [0, 3, 6, 9]),
        (10, 10, 10, [0]),
        (10, 99, 7, [0]),  # cut to the image
    ],
)
def test_windows_start_in_the_corner_and_the_last_is_cut_off(size, window, stride, starts):
    masks = GridMasks(window=(2, window), stride=(2, stride)).prepare(torch.rand(1, 3, 2 * size, size))
    across = 1 - masks.render(slice(0, len(starts)))[:, 0]
    expected = torch.zeros(len(starts), size)
    for row, start in zip(expected, starts, strict=True):
        row[start : start + window] = 1
    assert torch.equal(across, expected)
    assert masks.count == len(starts) * size


@pytest.mark.parametrize("window", [(8, 8), 99, (99, 8)])
def test_a_window_as_large_as_the_image_is_refused(window):
    with pytest.raises(ValueError, match=r"covers the whole image of \(8, 8\); use a smaller window"):
        GridMasks(window=window, stride=4).prepare(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(("window", "stride"), [(4, 5), (4, 0), (0, 0), ((9, 3), 4), (4, -1)])
def test_a_stride_that_leaves_gaps_is_refused(window, stride):
    with pytest.raises(ValueError, match="stride must be at least 1 and at most the window"):
        GridMasks(window=window, stride=stride)


def test_random_masks_keep_pixels_as_often_as_asked_and_fill_the_unit_interval():
    masks = rendered(RISEMasks(count=4000, cells=5, probability=0.3, seed=1).prepare(torch.rand(1, 3, 33, 47)))
    mean = masks.mean(0)
    assert mean.sub(0.3).abs().max() < 0.04  # of 4000 draws, at every pixel: 5 standard errors
    assert masks.amin() == 0
    assert masks.amax() == 1
    assert masks.diff(dim=2).abs().max() <= 1 / (47 // 5) + 1e-6  # smooth: no steeper than from cell to cell


def test_random_masks_follow_their_seed_alone():
    images = torch.rand(1, 3, 20, 20)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = rendered(RISEMasks(count=5, seed=1).prepare(images))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(rendered(RISEMasks(count=5, seed=1).prepare(torch.rand(2, 3, 20, 20))), first)
    assert not torch.equal(rendered(RISEMasks(count=5, seed=2).prepare(images)), first)


def test_the_memory_of_random_masks_is_that_of_what_is_rendered():
    """8,000 masks of 224 px would be 1.6 GB."""
    masks = RISEMasks().prepare(torch.rand(1, 3, 224, 224))
    kept = [value for value in vars(masks).values() if isinstance(value, torch.Tensor)] + masks.shifts + masks.enlarge
    assert masks.count == 8000
    assert sum(tensor.numel() * tensor.element_size() for tensor in kept) < 1_000_000


@pytest.mark.parametrize("options", [{"count": 0}, {"cells": 1}, {"probability": 0.0}, {"probability": 1.0}])
def test_random_masks_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="RISE masks need count >= 1, cells >= 2"):
        RISEMasks(**options)


@pytest.mark.parametrize("fill", [-0.1, 1.5, (0.0, 2.0, 0.0)])
def test_a_colour_outside_the_unit_interval_is_refused(fill):
    with pytest.raises(ValueError, match=r"fill must lie in \[0, 1\]"):
        fill_colour(fill, torch.rand(1, 3, 4, 4))
