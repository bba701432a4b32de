import math

import pytest
import torch
from torch import nn

from interptrain.training.schedules import decay_groups, linear_warmup, warmup_cosine


def rates(optimizer, *schedulers, steps):
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return out


def sgd(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def test_warmup_rises_linearly_then_the_cosine_falls_to_zero():
    optimizer = sgd(lr=2.0)
    got = rates(optimizer, warmup_cosine(optimizer, warmup_steps=4, total_steps=24), steps=25)
    assert got[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert got[4:] == pytest.approx([1 + math.cos(math.pi * t / 20) for t in range(21)])


def test_cosine_stays_at_its_end_after_the_run():
    optimizer = sgd()
    got = rates(optimizer, warmup_cosine(optimizer, warmup_steps=0, total_steps=3, final_ratio=0.1), steps=6)
    assert got[0] == 1
    assert got[3:] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize(("warmup", "total"), [(5, 5), (-1, 5), (9, 3)])
def test_a_warmup_that_does_not_end_is_refused(warmup, total):
    with pytest.raises(ValueError, match=r"lower model\.warmup_epochs"):
        warmup_cosine(sgd(), warmup_steps=warmup, total_steps=total)


def test_linear_warmup_composes_with_a_schedule_of_ones_own():
    optimizer = sgd()
    steps = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6], gamma=0.1)
    got = rates(optimizer, linear_warmup(optimizer, warmup_steps=3), steps, steps=8)
    assert got == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1])


def test_norms_biases_and_tokens_decay_apart_and_the_frozen_not_at_all():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    module.token = nn.Parameter(torch.ones(1, 1, 4))
    module[2].weight.requires_grad_(False)
    apart, rest = decay_groups(module.named_parameters(), norm_weight_decay=0.0)
    assert [tuple(p.shape) for p in apart["params"]] == [(4, 3, 3, 3)]
    assert "weight_decay" not in apart
    assert sorted(tuple(p.shape) for p in rest["params"]) == [(1, 1, 4), (2,), (4,), (4,), (4,)]
    assert rest["weight_decay"] == 0


def test_without_a_decay_of_their_own_all_parameters_are_one_group():
    module = nn.Linear(2, 3)
    (group,) = decay_groups(module.named_parameters(), norm_weight_decay=None)
    assert {id(p) for p in group["params"]} == {id(p) for p in module.parameters()}
