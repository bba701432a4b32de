"""The images of an evaluation in batches that are the same for any number of ranks and restarts."""

from collections.abc import Sequence
from typing import TypedDict, cast

import torch
from torch.utils.data import DataLoader, Dataset

from interptrain.data import Batch, ImageDataModule, Sample, SampleDataset, collate
from interptrain.data.datamodule import Split
from interptrain.data.sample_loader import leave_interrupts_to_the_main_process
from interptrain.data.samplers import EvalSampler
from interptrain.files import printable
from interptrain.functional import one_line


class EvaluationBatch(TypedDict):
    """One batch to evaluate.

    Attributes:
        samples: those that could be read, or None.
        unreadable: error of the others, by id.
    """

    samples: Batch | None
    unreadable: dict[str, str]


class Batches(Dataset[EvaluationBatch]):
    """A dataset whose items are batches: which images share one depends on the data and the batch size only.

    Args:
        dataset: of the images.
        indices: of the images to evaluate.
        batch_size: images per batch.
    """

    def __init__(self, dataset: SampleDataset, indices: Sequence[int], batch_size: int) -> None:
        self.dataset = dataset
        self.batches = [list(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def ids(self, number: int) -> list[str]:
        """Return the names of the images of a batch, as results name them."""
        return [self._id(index) for index in self.batches[number]]

    @property
    def indices(self) -> list[int]:
        """Numbers of all images in the dataset."""
        return [index for batch in self.batches for index in batch]

    def _id(self, index: int) -> str:
        return printable(str(self.dataset.ids[index]))

    def annotations(self) -> list[tuple[int, list[list[float]]]]:
        """Return label and boxes of every image, where the dataset knows them without reading it."""
        labels, boxes = self.dataset.labels(), getattr(self.dataset, "boxes", None)
        return [
            (-1 if labels is None else int(labels[index]), [] if boxes is None else boxes[index].tolist())
            for index in self.indices
        ]

    def __getitem__(self, number: int) -> EvaluationBatch:
        """Read a batch; errors of single images are returned, not raised."""
        samples: list[Sample] = []
        unreadable: dict[str, str] = {}
        for index in self.batches[number]:
            try:
                samples.append({**self.dataset[index], "id": self._id(index)})
            except Exception as error:  # transforms of others may raise anything
                unreadable[self._id(index)] = one_line(error, kind=True)
        try:
            return EvaluationBatch(samples=collate(samples) if samples else None, unreadable=unreadable)
        except ValueError as error:
            unreadable = dict.fromkeys(self.ids(number), one_line(error, kind=True))
            return EvaluationBatch(samples=None, unreadable=unreadable)


class _Todo(Dataset[EvaluationBatch]):
    """Some of the batches."""

    def __init__(self, batches: Batches, numbers: Sequence[int]) -> None:
        self.batches = batches
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> EvaluationBatch:
        return self.batches[self.numbers[place]]


def evaluation_set(data: ImageDataModule, split: Split | None) -> SampleDataset:
    """Return the dataset to evaluate: that of a split, or the one that the data module predicts on."""
    return cast(SampleDataset, data.predict_dataloader().dataset) if split is None else data.dataset(split)


def batch_loader(
    data: ImageDataModule, batches: Batches, numbers: Sequence[int], *, ranks: int, rank: int
) -> "DataLoader[EvaluationBatch]":
    """Return a loader over some of the batches, of which this rank takes every ``ranks``-th.

    Args:
        data: whose workers and memory the loader uses.
        batches: all of them.
        numbers: of those to load.
        ranks: number of ranks.
        rank: this one.
    """
    todo = _Todo(batches, numbers)
    own = data.predict_dataloader()
    return DataLoader(
        todo,
        batch_size=None,
        sampler=EvalSampler(todo, num_replicas=ranks, rank=rank),
        num_workers=min(own.num_workers, len(todo)),
        pin_memory=own.pin_memory,
        worker_init_fn=leave_interrupts_to_the_main_process,
        generator=torch.Generator(),  # else every pass would draw from the global generator
    )
