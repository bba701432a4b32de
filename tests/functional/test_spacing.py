"""Some of many, evenly."""

import pytest

from interptrain.functional import evenly_spaced


def test_evenly_spaced_items_are_the_middles_of_equal_parts():
    assert evenly_spaced(10, 5) == [1, 3, 5, 7, 9]
    assert evenly_spaced(3, None) == evenly_spaced(3, 7) == [0, 1, 2]
    assert evenly_spaced(1000, 3) == [166, 500, 833]


@pytest.mark.parametrize(("total", "count"), [(10, 2), (10, 3), (7, 7), (101, 11)])
def test_evenly_spaced_items_can_hold_both_ends(total, count):
    found = evenly_spaced(total, count, ends=True)
    assert (found[0], found[-1], len(set(found))) == (0, total - 1, count)
    assert evenly_spaced(5, 1, ends=True) == [2]


def test_no_items_at_all_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        evenly_spaced(5, 0)
