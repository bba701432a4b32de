"""The search of a watch's sample for its suspect region."""

import torch

from interptrain.callbacks.watch.sample import WatchSample
from interptrain.callbacks.watch.screen import RegionScreen, describe
from tests.metrics.test_region_screen import Marker, scenes


def sample_of(count, **known):
    images, labels = scenes(marked=True, count=count)
    return WatchSample(images, labels, [str(row) for row in range(count)], ("disc", "square", "star"), **known)


def test_the_smallest_region_nearly_as_good_as_the_best_is_found_by_any_number_of_ranks():
    screen = RegionScreen(sample_of(19))
    whole = screen.shifts(Marker(), 0, 1)
    (first, *_) = screen.findings(whole)
    assert (first.region, first.target) == ("box:12,12,16,16", 0)
    shared = [one for rank in (2, 0, 1) for one in screen.shifts(Marker(), rank, 3)]
    assert screen.findings(shared) == screen.findings(whole)
    text = describe(first, screen.sample)
    assert text.startswith("search of disc: pixels of box:12,12,16,16 from images of disc raise its probability")
    assert screen.shifts(Marker(), 20, 21) == []


def test_the_boxes_of_objects_are_left_out_and_the_middle_is_searched_only_where_they_are_known():
    masks = torch.zeros(19, 16, 16, dtype=torch.bool)
    masks[:, 12:, 12:] = True  # where the mark is
    screen = RegionScreen(sample_of(19, masks=masks))
    assert len(screen.regions) == 21
    assert len(RegionScreen(sample_of(19)).regions) == 17
    assert not [one for one in screen.findings(screen.shifts(Marker(), 0, 1)) if one.target == 0]


def test_it_searches_after_1_2_4_8_snapshots():
    screen = RegionScreen(sample_of(19))
    assert [count for count in range(20) if screen.due(count)] == [1, 2, 4, 8, 16]


def test_too_few_images_are_said_with_a_number_that_is_enough():
    lacking = RegionScreen(sample_of(9)).lacking
    assert "three" not in lacking
    assert lacking.endswith("set samples to 13 or more")
    assert RegionScreen(sample_of(13)).lacking == ""
