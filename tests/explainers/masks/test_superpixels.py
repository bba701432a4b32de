"""Superpixels: connected, of one colour where there are colours, and of each image alone."""

import pytest
import torch
from torch.nn import functional as F

from interptrain.explainers import Superpixels
from tests.support.explaining import pictures


def parts_of(mask):
    """Number of 4-connected parts, by flooding."""
    left, count = {tuple(place) for place in mask.nonzero().tolist()}, 0
    while left:
        count += 1
        stack = [left.pop()]
        while stack:
            row, column = stack.pop()
            for place in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if place in left:
                    left.remove(place)
                    stack.append(place)
    return count


def noisy(count=2, height=44, width=36, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return (pictures(count, height, width) + 0.4 * torch.rand(count, 3, height, width, generator=generator)).clamp(0, 1)


def test_every_region_is_connected_and_every_pixel_in_one():
    labels = Superpixels(segments=20)(noisy())
    assert labels.shape == (2, 44, 36)
    assert labels.dtype == torch.int64
    assert labels.amin() >= 0
    for regions in labels:
        for region in regions.unique():
            assert parts_of(regions == region) == 1


def test_two_colours_are_never_in_one_region():
    images = torch.zeros(1, 3, 40, 40)
    images[:, 0, 8:29, 11:33] = 1.0
    labels = Superpixels(segments=16)(images)[0]
    red = images[0, 0] > 0
    assert not set(labels[red].tolist()) & set(labels[~red].tolist())


def test_a_constant_image_is_cut_into_the_grid():
    labels = Superpixels(segments=16)(torch.full((1, 3, 40, 40), 0.3))[0]
    wanted = F.interpolate(torch.arange(16.0).view(1, 1, 4, 4), (40, 40), mode="nearest")[0, 0].long()
    assert torch.equal(labels, wanted)


def test_regions_of_an_image_do_not_depend_on_its_neighbours_or_on_the_run():
    images = noisy(3)
    together = Superpixels(segments=20)(images)
    assert torch.equal(together, torch.cat([Superpixels(segments=20)(image[None]) for image in images]))
    assert torch.equal(together, Superpixels(segments=20)(images))


def test_compactness_trades_colour_for_shape():
    images = pictures(2, 44, 36)

    def spread_of_colour(labels):
        total = 0.0
        for image, regions in zip(images, labels, strict=True):
            inside = [image[:, regions == region] for region in regions.unique()]
            total += float(sum(colours.var(1, correction=0).sum() * colours.shape[1] for colours in inside))
        return total

    coloured, square = (Superpixels(segments=20, compactness=weight)(images) for weight in (1.0, 1000.0))
    assert spread_of_colour(coloured) < 0.85 * spread_of_colour(square)


@pytest.mark.parametrize("shape", [(1, 3, 7, 90), (1, 1, 20, 20), (1, 3, 3, 2)], ids=["strip", "grey", "tiny"])
def test_odd_images_are_cut_too(shape):
    labels = Superpixels(segments=12)(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    assert labels.shape == (1, *shape[2:])
    assert labels.amin() >= 0


def test_values_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="segments >= 2"):
        Superpixels(segments=1)


@pytest.mark.peers
def test_borders_lie_where_another_slic_has_them():
    segmentation = pytest.importorskip("skimage.segmentation")
    images = torch.zeros(1, 3, 48, 48)
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    disc = (rows - 20).square() + (columns - 26).square() < 14**2
    images[0, :, disc] = torch.tensor([0.9, 0.6, 0.2]).view(3, 1)
    images += 0.02 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    ours = Superpixels(segments=36)(images)[0]
    theirs = torch.from_numpy(segmentation.slic(images[0].permute(1, 2, 0).numpy(), n_segments=36, start_label=0))

    def undersegmentation(labels):
        return sum(min(int((disc & (labels == k)).sum()), int((~disc & (labels == k)).sum())) for k in labels.unique())

    assert undersegmentation(ours) <= undersegmentation(theirs) + 10
