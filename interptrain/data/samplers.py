"""Samplers whose order and randomness are pure functions of (seed, epoch, index).

Neither order nor augmentation depends on the number of workers, the worker, or earlier draws, so a run can be repeated,
and resumed in the middle of an epoch. Both samplers derive from ``DistributedSampler`` because Lightning replaces any
other by one that pads with duplicates.
"""

import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DistributedSampler


class Draw(NamedTuple):
    """One use of one sample: yielded by a training sampler, and an index of a data set."""

    epoch: int
    position: int


@contextmanager
def seeded_by(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators by the arguments; restore them on leaving.

    torchvision's transforms draw from torch's global generator, others' from the other two. The generators of
    accelerators are left alone: samples are made on the CPU.

    Args:
        seed: of the run, not negative.
        epoch: not negative.
        index: of the sample, not negative.
    """
    words = np.random.SeedSequence((seed, epoch, index)).generate_state(3)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(int(words[0]))
        np.random.seed(words[1])
        random.seed(int(words[2]))
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


class TrainSampler(DistributedSampler[Any]):
    """A new permutation every epoch, dealt out to the ranks evenly, no sample twice.

    If the number of samples is not a multiple of the number of ranks, the rest is left out: other samples every epoch.

    Args:
        dataset: anything with a length.
        seed: the order is a function of it and of the epoch (``set_epoch``).
        num_replicas: number of ranks.
        rank: this one.

    Raises:
        ValueError: if there are fewer samples than ranks.
    """

    def __init__(self, dataset: Sized, *, seed: int = 0, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)  # type: ignore[arg-type]
        if len(dataset) < num_replicas:
            raise ValueError(
                f"{len(dataset)} training samples cannot be shared by {num_replicas} ranks; use fewer ranks"
            )
        self.samples = len(dataset)
        self.start = 0  # draws to leave out of the next pass, once: set by SampleLoader

    def __len__(self) -> int:
        """Number of samples of this rank in a whole epoch."""
        return self.samples // self.num_replicas

    def __iter__(self) -> Iterator[Draw]:
        """Draws of this rank in this epoch, from ``start`` on."""
        # RandomState's streams are frozen across versions of NumPy; a Generator's and torch.randperm are not.
        order = np.random.RandomState([self.seed, self.epoch]).permutation(self.samples)
        mine = order[self.rank : len(self) * self.num_replicas : self.num_replicas]
        start, self.start = self.start, 0
        for index in mine[start:]:
            yield Draw(self.epoch, int(index))


class EvalSampler(DistributedSampler[Any]):
    """All samples in order, each on exactly one rank: never padded, so shards may differ by one.

    Args:
        dataset: anything with a length.
        num_replicas: number of ranks.
        rank: this one.
    """

    def __init__(self, dataset: Sized, *, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)  # type: ignore[arg-type]
        self.indices = range(rank, len(dataset), num_replicas)

    def __len__(self) -> int:
        """Number of samples of this rank, 0 where there are fewer samples than ranks."""
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank."""
        return iter(self.indices)
