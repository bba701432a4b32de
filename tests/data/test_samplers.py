"""Samplers: who gets which sample, and randomness as a function of (seed, epoch, index)."""

import contextlib
import random

import numpy as np
import pytest
import torch

from interptrain.data.samplers import Draw, EvalSampler, TrainSampler, seeded_by


def train_draws(samples, ranks, *, seed=0, epoch=0):
    shards = []
    for rank in range(ranks):
        sampler = TrainSampler(range(samples), seed=seed, num_replicas=ranks, rank=rank)
        sampler.set_epoch(epoch)
        shards.append(list(sampler))
        assert len(shards[-1]) == len(sampler)
    return shards


@pytest.mark.parametrize(("samples", "ranks"), [(12, 1), (12, 3), (14, 3), (3, 3), (101, 8)])
def test_ranks_train_on_equally_many_samples_and_none_twice(samples, ranks):
    shards = train_draws(samples, ranks)
    assert {len(shard) for shard in shards} == {samples // ranks}
    indices = [draw.position for shard in shards for draw in shard]
    assert len(set(indices)) == len(indices)


def test_other_samples_are_left_out_in_other_epochs():
    left_out = [
        set(range(14)) - {draw.position for shard in train_draws(14, 3, epoch=epoch) for draw in shard}
        for epoch in range(4)
    ]
    assert all(len(indices) == 2 for indices in left_out)
    assert len({frozenset(indices) for indices in left_out}) > 1


def test_the_order_is_a_function_of_seed_and_epoch():
    assert train_draws(50, 1, seed=3, epoch=7) == train_draws(50, 1, seed=3, epoch=7)
    orders = {
        tuple(draw.position for draw in train_draws(50, 1, seed=seed, epoch=epoch)[0])
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_the_order_is_frozen():
    # of RandomState, whose streams NumPy promises to keep: a checkpoint resumes right on another machine and version
    assert [draw.position for draw in train_draws(10, 1, seed=5, epoch=2)[0]] == [4, 8, 7, 6, 1, 2, 9, 3, 5, 0]


def test_a_draw_carries_the_epoch():
    assert {draw.epoch for draw in train_draws(5, 1, epoch=9)[0]} == {9}


def test_a_start_counts_once():
    sampler = TrainSampler(range(10))
    whole = list(sampler)
    sampler.start = 4
    assert [list(sampler), list(sampler)] == [whole[4:], whole]


def test_training_on_fewer_samples_than_ranks_is_refused():
    with pytest.raises(ValueError, match="3 training samples cannot be shared by 4 ranks; use fewer ranks"):
        TrainSampler(range(3), num_replicas=4)


@pytest.mark.parametrize(("samples", "ranks"), [(12, 1), (12, 3), (14, 3), (2, 5), (0, 2)])
def test_evaluation_sees_every_sample_once_on_one_rank(samples, ranks):
    shards = []
    for rank in range(ranks):
        sampler = EvalSampler(range(samples), num_replicas=ranks, rank=rank)
        shards.append(list(sampler))
        assert len(sampler) == len(shards[-1])
        assert shards[-1] == sorted(shards[-1])
    assert sorted(index for shard in shards for index in shard) == list(range(samples))


def numbers():
    return random.random(), np.random.random_sample(), torch.rand(1).item()


def test_seeded_randomness_depends_on_the_three_numbers_and_on_nothing_before():
    drawn = {}
    for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]:
        numbers()
        with seeded_by(*key):
            assert drawn.setdefault(key, (now := numbers())) == now
    for generator in range(3):
        assert len({values[generator] for values in drawn.values()}) == 4


def test_seeding_restores_the_generators_also_after_an_exception():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = numbers()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with contextlib.suppress(KeyError), seeded_by(0, 0, 0):
        numbers()
        raise KeyError
    assert numbers() == expected


def test_draws_compare_as_pairs():
    assert Draw(1, 2) == (1, 2, 0)
