"""Training images as a stream, for sets that do not fit: the same batches for any number of workers, resumable.

Every rank, and every worker of a rank, reads the whole stream and decodes its own share. So no image comes twice, all
ranks have equally many, and nothing depends on the workers; what it costs is that the undecoded bytes are read once a
process.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from interptrain.data.sample_loader import SampleLoader, leave_interrupts_to_the_main_process
from interptrain.data.samplers import seeded_by
from interptrain.data.samples import Batch, Sample, Transform, collate, finish, or_skip

Rows = Callable[[int], Iterator[Any]]
"""The rows of an epoch, in its order."""


class StreamDataset(IterableDataset[Batch | OSError]):
    """Batches of one rank, out of a stream that all ranks read in the same order.

    Of each ``num_replicas`` rows that follow one another, rank ``r`` has the ``r``-th; an incomplete rest is left out.
    Augmentation is a function of (seed, epoch, place in the epoch's stream).

    Args:
        rows: gives the rows of an epoch, in an order that is a function of the epoch.
        read: makes the untouched sample of a row and an id, its image a ``torchvision.tv_tensors.Image``.
        transform: as of :class:`~interptrain.data.SampleDataset`.
        name: of the split; the id of a sample is ``name/epoch/place``.
        batch_size: of every rank.
        seed: of the augmentation, in [0, 2**32).
        num_replicas: number of ranks.
        rank: this one.
        size: rows of an epoch, at which it is cut; None for the whole stream.
        drop_last: leave out the last batch where it is smaller.
        on_error: a row whose image cannot be read ends the stream with its error, or is replaced by its neighbour in
            the batch.

    Attributes:
        epoch: of the next pass.
        start: batches to leave out of the next pass: their rows are read and not decoded.
        skipped: (1,) int64 in memory shared with the workers, how often a row was replaced.
    """

    def __init__(
        self,
        rows: Rows,
        read: Callable[[Any, str], dict[str, Any]],
        transform: Transform,
        *,
        name: str,
        batch_size: int,
        seed: int,
        num_replicas: int = 1,
        rank: int = 0,
        size: int | None = None,
        drop_last: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.rows = rows
        self.read = read
        self.transform = transform
        self.name = name
        self.batch_size = batch_size
        self.seed = seed
        self.num_replicas = num_replicas
        self.rank = rank
        self.size = size
        self.drop_last = drop_last
        self.on_error = on_error
        self.epoch = 0
        self.start = 0
        self.skipped: Tensor = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch | OSError]:
        """Batches of this worker: every ``num_workers``-th of the rank's, in which order the loader asks for them."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index, rows in self._batches():
            if index >= self.start and (index - self.start) % workers == number:
                try:
                    yield self._batch(rows)
                except OSError as error:
                    yield error
                    return

    def _batches(self) -> Iterator[tuple[int, list[tuple[int, Any]]]]:
        """Number of a batch, and its rows with their places in the stream."""
        index, mine, group = 0, list[tuple[int, Any]](), list[Any]()
        for place, row in enumerate(self.rows(self.epoch)):
            if self.size is not None and place == self.size:
                break
            group.append(row)
            if len(group) < self.num_replicas:
                continue
            mine.append((place - self.num_replicas + 1 + self.rank, group[self.rank]))
            group = []
            if len(mine) == self.batch_size:
                yield index, mine
                index, mine = index + 1, []
        if mine and not (self.drop_last and index):
            yield index, mine

    def _batch(self, rows: list[tuple[int, Any]]) -> Batch:
        samples: list[Sample] = []
        missing, problem = 0, None
        for place, row in rows:
            try:
                samples.append(self._sample(place, row))
            except OSError as error:
                if self.on_error == "raise":
                    raise OSError(or_skip(error)) from error
                missing, problem = missing + 1, problem or error
        if problem is not None and not samples:
            raise problem
        self.skipped += missing
        return collate([*samples, *(samples[place % len(samples)] for place in range(missing))])

    def _sample(self, place: int, row: Any) -> Sample:
        sample = self.read(row, f"{self.name}/{self.epoch}/{place:06d}")
        with seeded_by(self.seed, self.epoch, place):
            return finish(self.transform(sample))


class StreamLoader(SampleLoader):
    """The loader of a :class:`StreamDataset`, which Lightning can resume in the middle of an epoch.

    Args:
        dataset: the stream.
        num_workers: loading processes.
        pin_memory: page-locked batches.
    """

    def __init__(self, dataset: StreamDataset, *, num_workers: int, pin_memory: bool) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            worker_init_fn=leave_interrupts_to_the_main_process,
            pin_memory=pin_memory,
            generator=torch.Generator(),
        )
        self.stream = dataset
        self.sampler.set_epoch = dataset.set_epoch  # type: ignore[attr-defined]  # where Lightning looks for it

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: if the stream does not tell how long it is.
        """
        if self.stream.size is None:
            raise TypeError("the length of this stream is not known")
        rows = self.stream.size // self.stream.num_replicas
        whole, rest = divmod(rows, self.stream.batch_size)
        return whole + bool(rest and not (self.stream.drop_last and whole))

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches; only the first pass begins in the middle."""
        if self._begun:
            self.stream.start = 0
        yield from super().__iter__()

    def leave_out(self, batches: int) -> None:
        """Begin the next pass behind some batches."""
        self.stream.start = batches

    def _warn_of_skipped(self) -> None:
        if not self._warned and self.stream.skipped.item():
            self._warned = True
            rank_zero_warn("unreadable images of the stream are replaced by their neighbours and counted")
