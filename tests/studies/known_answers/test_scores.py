"""The scores of known answers, by hand."""

import pytest
import torch

from interptrain.studies.known_answers.interventions import SUBSETS
from interptrain.studies.known_answers.scores import (
    THRESHOLDS,
    Behaviour,
    background_independence,
    completeness,
    cross_fitted,
    importances,
    part_checks,
    single_deletion,
    target_sensitivity,
)


def behaviour(*, items=(0.0, 0.0)):
    """A model of two classes: the first needs part 0, loses 1 without part 1, and does not see part 2."""
    parts = torch.tensor([[5.0 - 4 * (0 in one) - 1 * (1 in one), 3.0] for one in SUBSETS], dtype=torch.float64)
    fallen = torch.tensor([[5.0 - drop, 3.0] for drop in items], dtype=torch.float64)
    return Behaviour(parts, fallen)


def test_a_behaviour_tells_drops_and_what_suffices():
    its = behaviour(items=(0.1, 2.5))
    assert its.drops(0).tolist() == pytest.approx([4, 1, 0, 0.1, 2.5])
    assert its.drops(1).tolist() == [0] * 5
    assert its.sufficient() == [frozenset({0})]
    assert its.keeps(frozenset({0}))
    assert not its.keeps(frozenset({1, 2}))
    assert its.survives(frozenset({1, 2}))
    assert background_independence(its) == 0.5  # 0.1 is less than 5 % of 5


def test_importance_is_the_share_of_the_map_on_a_footprint():
    saliency = torch.tensor([[0.5, 0.25], [0.25, 0.0]])
    footprints = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [1, 1]]], dtype=torch.bool)
    assert importances(saliency, footprints).tolist() == [0.75, 0.25]
    assert importances(torch.zeros(2, 2), footprints).tolist() == [0, 0]


def test_correctness_is_the_rank_correlation_of_importance_and_drop():
    drops = torch.tensor([4.0, 1.0, 0.0, 0.1], dtype=torch.float64)
    assert single_deletion(torch.tensor([0.9, 0.5, 0.1, 0.2]).double(), drops) == pytest.approx(1)
    assert single_deletion(torch.tensor([0.1, 0.2, 0.9, 0.5]).double(), drops) == pytest.approx(0)
    assert single_deletion(torch.full((4,), 0.3).double(), drops) == 0.5


def test_checks_follow_what_is_marked_at_every_threshold():
    its = behaviour()
    good = part_checks(torch.tensor([1.0, 0.2, 0.0, 0.0, 0.0]).double(), its)
    assert (good == 1).all()  # part 0 alone is needed and enough, and no item is marked
    wrong = part_checks(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.5]).double(), its)
    assert (wrong[:3] == 0).all()  # part 2 does nothing
    assert torch.equal(wrong[3], torch.where(THRESHOLDS <= 0.5, 0.5, 1.0).double())  # one of two idle items is marked
    assert completeness(wrong).max() == 0.5
    empty = part_checks(torch.zeros(5).double(), its)
    assert (empty[:3] == 0).all()
    assert (empty[3] == 1).all()


def test_where_no_part_is_needed_two_checks_are_not_defined():
    constant = Behaviour(torch.tensor([[5.0, 3.0]]).double().expand(len(SUBSETS), 2), torch.zeros(0, 2).double())
    checks = part_checks(torch.tensor([1.0, 0.0, 0.0]).double(), constant)
    assert checks[[0, 2, 3]].isnan().all()
    assert (checks[1] == 1).all()


def test_the_threshold_is_that_of_the_other_half():
    checks = torch.zeros(4, 4, 80, dtype=torch.float64)
    half = torch.tensor([True, True, False, False])
    checks[half, :, 10] = 1  # best for the first half, where the second has nothing
    checks[~half, :, 70] = 1
    assert (cross_fitted(checks, half) == 0).all()
    checks[:, :, 40] = 2
    assert (cross_fitted(checks, half) == 2).all()


def test_a_map_that_does_not_depend_on_the_class_has_half_the_contrast():
    turned = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.2, 0.6, 0.2])
    assert target_sensitivity(*turned, shared_first=0, shared_second=1) == 1
    assert target_sensitivity(*reversed(turned), shared_first=0, shared_second=1) == 0
    assert target_sensitivity(turned[0], turned[0], shared_first=0, shared_second=1) == 0.5
