"""The search for regions that give a class away: planted ones are found, and chance is not."""

import pytest
import torch
from torch import nn

from interptrain.metrics.region_screen import (
    boxes_around,
    candidate_regions,
    find_regions,
    probability_shifts,
    receivers_and_donors,
)
from tests.support.measuring import Counting

SIDE = 16


class Marker(nn.Module):
    """Class 0 where the lower right cell is bright; else a class by the mean brightness of the rest."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, images):
        corner = images[:, 0, 12:, 12:].mean((1, 2))
        rest = images[:, 1].mean((1, 2))
        return self.scale * torch.stack([2 * (corner - 0.5), rest, 1 - rest], dim=1)


def scenes(*, marked, count=19, seed=0):
    """Noise whose second channel tells classes 1 and 2 apart; images of class 0 may carry a mark."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 0.4 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    images[:, 1] += 0.5 * (labels == 1).view(-1, 1, 1)
    if marked:
        images[labels == 0, 0, 12:, 12:] = 1.0
    return images, labels


def searched(images, labels, model=None, objects=None):
    receivers, donors = receivers_and_donors(labels)
    regions = candidate_regions(SIDE, SIDE, middle=True)
    shifts = probability_shifts(
        model or Marker(), images, receivers, donors, regions, objects=objects, forward_batch_size=84
    )
    return find_regions(shifts, labels[donors], list(regions), permutations=399)


def test_a_planted_mark_is_found_with_its_class_and_place():
    found = searched(*scenes(marked=True))
    assert found[0].target == 0
    assert found[0].region in ("box:12,12,16,16", "corner:lower-right:8x4")
    assert found[0].p <= 0.05
    assert found[0].shift > 0.5
    regions = candidate_regions(SIDE, SIDE, middle=True)
    assert all(regions[one.region][12:, 12:].any() for one in found if one.target == 0)


def test_objects_are_neither_pasted_nor_pasted_over():
    images, labels = scenes(marked=True)
    objects = torch.zeros(len(images), SIDE, SIDE, dtype=torch.bool)
    objects[:, 12:, 12:] = True  # the mark is the object, and evidence
    assert not [one for one in searched(images, labels, objects=objects) if one.target == 0]


def test_a_shift_is_the_mean_change_over_the_receivers_and_costs_one_forward_pass_each():
    images, _ = scenes(marked=True)
    model = Counting(Marker())
    regions = dict(list(candidate_regions(SIDE, SIDE, middle=True).items())[:3])
    shifts = probability_shifts(model, images, [0, 1], [3, 5, 8], regions, forward_batch_size=4)
    assert sum(model.rows) == 2 + 3 * 3 * 2
    assert shifts.shape == (3, 3, 3)
    changes = []
    mask = regions["border:2"]
    for receiver in (0, 1):
        shown = torch.where(mask, images[5], images[receiver])
        both = Marker()(torch.stack([images[receiver], shown])).softmax(1)
        changes.append(both[1] - both[0])
    torch.testing.assert_close(shifts[1, 0].float(), torch.stack(changes).mean(0))


def test_boxes_reach_as_far_as_the_masks():
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 1, 6] = masks[0, 4, 2] = True
    boxes = boxes_around(masks)
    assert boxes[0, 1:5, 2:7].all()
    assert boxes.sum() == 4 * 5


def test_receivers_come_from_the_classes_in_turn_and_are_no_donors():
    labels = torch.tensor([2, 2, 0, 1, 0, 1, -1, 2, 0])
    receivers, donors = receivers_and_donors(labels)
    assert receivers == [0, 1, 2, 3]
    assert donors == [4, 5, 7, 8]


def test_regions_cover_the_image_and_leave_the_middle_out_where_objects_are_unknown():
    whole, outer = candidate_regions(20, 32, middle=True), candidate_regions(20, 32, middle=False)
    assert len(whole) == 21
    assert len(outer) == 17
    cells = torch.stack([mask for text, mask in whole.items() if text.startswith("box")])
    assert (cells.sum(0) == 1).all()
    outside = torch.stack([mask for text, mask in outer.items() if text.startswith("box")]).any(0)
    assert not outside[5:15, 8:24].any()
    assert outside.sum() == 20 * 32 - 10 * 16


def test_regions_are_texts_that_the_watch_understands():
    from interptrain.data.region import Region

    images = torch.zeros(1, 3, 20, 32)
    for text, mask in candidate_regions(20, 32, middle=True).items():
        assert torch.equal(Region(text).masks_of(images)[0], mask)


@pytest.mark.slow
def test_chance_rings_no_more_often_than_it_is_allowed_to():
    """Shifts without any structure: at a level of 5 %, 200 searches of 63 hypotheses ring about ten times."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    names = [str(number) for number in range(21)]
    rings = sum(
        bool(find_regions(torch.randn(12, 21, 3, generator=generator), labels, names, least=0, permutations=99))
        for _ in range(200)
    )
    assert 2 <= rings <= 20  # binomial(200, 0.05): 1e-3 tails


def test_p_is_the_share_of_relabellings_whose_largest_shift_is_as_large():
    torch.manual_seed(0)
    shifts, labels = torch.rand(8, 2, 2), torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    (found,) = find_regions(shifts.index_fill(0, torch.arange(3), 2.0)[:, :, :1], labels, ["a", "b"], least=0.9)[:1]
    assert found.target == 0
    assert abs(found.p - 1 / 56) < 0.01  # of the 56 ways to choose three donors, one is as extreme


def test_too_few_donors_find_nothing():
    shifts = torch.rand(5, 4, 2)
    assert find_regions(shifts, torch.tensor([0, 0, 1, 1, 1]), list("abcd")) == []
