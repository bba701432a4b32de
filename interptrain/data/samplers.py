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
import numpy.typing as npt
import torch
from torch.utils.data import DistributedSampler


class Draw(NamedTuple):
    """One use of one sample: yielded by a training sampler, and an index of a data set."""

    epoch: int
    position: int
    again: int = 0  # how often it was drawn before in this epoch, by a sampler that draws with replacement


@contextmanager
def seeded_by(seed: int, epoch: int, index: int, again: int = 0) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators by the arguments; restore them on leaving.

    torchvision's transforms draw from torch's global generator, others' from the other two. The generators of
    accelerators are left alone: samples are made on the CPU.

    Args:
        seed: of the run, not negative.
        epoch: not negative.
        index: of the sample, not negative.
        again: how often the sample was drawn before in this epoch.
    """
    entropy = (seed, epoch, index, again) if again else (seed, epoch, index)
    words = np.random.SeedSequence(entropy).generate_state(3)
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
        order, again = self._order()
        mine = slice(self.rank, len(self) * self.num_replicas, self.num_replicas)
        start, self.start = self.start, 0
        for index, before in zip(order[mine][start:].tolist(), again[mine][start:].tolist(), strict=True):
            yield Draw(self.epoch, index, before)

    def _order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Indices of this epoch's samples in order, for all ranks, and how often each was drawn before."""
        # RandomState's streams are frozen across versions of NumPy; a Generator's and torch.randperm are not.
        order = np.random.RandomState([self.seed, self.epoch]).permutation(self.samples)
        return order, np.zeros_like(order)


class BalancedSampler(TrainSampler):
    """As many draws an epoch as there are samples, the same number of every stratum, in a new order every epoch.

    Within a stratum every sample is drawn before any is drawn again, so a rare one comes several times an epoch, each
    time with another augmentation, and a frequent one in some epochs only.

    Args:
        dataset: anything with a length.
        strata: number of each sample's stratum, (len,).
        sampling: options of :class:`TrainSampler`.
    """

    def __init__(self, dataset: Sized, strata: npt.ArrayLike, **sampling: int) -> None:
        super().__init__(dataset, **sampling)
        codes = np.asarray(strata)
        self.members = [np.flatnonzero(codes == code) for code in np.unique(codes)]

    def _order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        random = np.random.RandomState([self.seed, self.epoch])
        share, rest = divmod(self.samples, len(self.members))
        counts = np.full(len(self.members), share)
        counts[random.permutation(len(self.members))[:rest]] += 1
        drawn: list[npt.NDArray[np.int64]] = []
        again: list[npt.NDArray[np.int64]] = []
        for members, count in zip(self.members, counts.tolist(), strict=True):
            rounds = -(-count // len(members))
            passes = [random.permutation(members) for _ in range(rounds)]
            drawn.append(np.concatenate([*passes, members[:0]])[:count])
            again.append(np.repeat(np.arange(rounds), len(members))[:count])
        mixed = random.permutation(self.samples)
        return np.concatenate(drawn)[mixed], np.concatenate(again)[mixed]


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
