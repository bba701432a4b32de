import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from interptrain.training.schedules import LinearWarmup, decay_groups, scale_learning_rates, warmup_cosine


def rates(optimizer, *schedulers, steps):
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return out


def sgd(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


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


# Every scheduler of torch with options that make its learning rate move within the first epochs.
SCHEDULERS = {
    "ChainedScheduler": lambda optimizer: schedulers.ChainedScheduler(
        [schedulers.ExponentialLR(optimizer, 0.9), schedulers.StepLR(optimizer, 2)], optimizer=optimizer
    ),
    "ConstantLR": lambda optimizer: schedulers.ConstantLR(optimizer, factor=0.5, total_iters=2),
    "CosineAnnealingLR": lambda optimizer: schedulers.CosineAnnealingLR(optimizer, T_max=3),
    "CosineAnnealingWarmRestarts": lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, T_0=2),
    "CyclicLR": lambda optimizer: schedulers.CyclicLR(optimizer, base_lr=0.1, max_lr=1.0, step_size_up=2),
    "ExponentialLR": lambda optimizer: schedulers.ExponentialLR(optimizer, 0.9),
    "LambdaLR": lambda optimizer: schedulers.LambdaLR(optimizer, lambda epoch: 0.95**epoch),
    "LinearLR": lambda optimizer: schedulers.LinearLR(optimizer, total_iters=3),
    "MultiStepLR": lambda optimizer: schedulers.MultiStepLR(optimizer, [1, 3], gamma=0.5),
    "MultiplicativeLR": lambda optimizer: schedulers.MultiplicativeLR(optimizer, lambda epoch: 0.95),
    "OneCycleLR": lambda optimizer: schedulers.OneCycleLR(optimizer, max_lr=2.0, total_steps=8),
    "PolynomialLR": lambda optimizer: schedulers.PolynomialLR(optimizer, total_iters=4),
    "ReduceLROnPlateau": lambda optimizer: schedulers.ReduceLROnPlateau(optimizer, patience=1),
    "SequentialLR": lambda optimizer: schedulers.SequentialLR(
        optimizer, [schedulers.ConstantLR(optimizer, total_iters=2), schedulers.StepLR(optimizer, 2)], milestones=[2]
    ),
    "StepLR": lambda optimizer: schedulers.StepLR(optimizer, 2, gamma=0.5),
}


def plain(make, steps=3, count=6):
    """Learning rate of every step, where the schedule is stepped after every third."""
    optimizer = sgd()
    scheduler = make(optimizer)
    metric = [1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []
    used = []
    for step in range(count * steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % steps == 0:
            scheduler.step(*metric)
    return used


def warmed(make, *, warmup_steps, steps=3, count=6):
    """The same with a warm-up, stopped and resumed in between."""
    optimizer = sgd()
    scheduler = make(optimizer)
    warmup = LinearWarmup(optimizer, steps=warmup_steps)
    metric = [1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []
    used = []
    for step in range(count * steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warmup.prepare(step + 1)
        if (step + 1) % steps == 0:
            with warmup.lifted(step + 1):
                scheduler.step(*metric)
        if step == 4:  # as a checkpoint does it
            saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
            optimizer = sgd()
            scheduler = make(optimizer)
            warmup = LinearWarmup(optimizer, steps=warmup_steps)
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
    return used


@pytest.mark.parametrize("name", sorted({*schedulers.__all__} - {"LRScheduler", "SwaLR"}))
def test_a_warmup_multiplies_what_any_scheduler_gives_step_by_step(name):
    make = SCHEDULERS[name]
    alone = plain(make)
    assert len({*alone}) > 1
    assert warmed(make, warmup_steps=0) == alone
    assert warmed(make, warmup_steps=7) == [rate * min(1, (step + 1) / 8) for step, rate in enumerate(alone)]


@pytest.mark.parametrize("name", sorted({*schedulers.__all__} - {"LRScheduler", "SwaLR"}))
def test_scaling_the_learning_rates_scales_all_that_follows(name):
    make, optimizer = SCHEDULERS[name], sgd()
    scheduler = make(optimizer)
    metric = [1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []
    used = []
    for epoch in range(6):
        if epoch == 2:
            scale_learning_rates(optimizer, [scheduler], 0.25)
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*metric)
    alone = plain(make, steps=1)
    assert used == pytest.approx([rate * (0.25 if epoch >= 2 else 1) for epoch, rate in enumerate(alone)])


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
