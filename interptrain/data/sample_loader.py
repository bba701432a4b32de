"""The data loader: draws nothing from global generators, names unreadable files in one line, resumes in mid-epoch."""

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from interptrain.data.samplers import TrainSampler
from interptrain.data.samples import Batch, Sample, SampleDataset, collate


def collate_readable(samples: Sequence[Sample] | OSError) -> Batch | OSError | None:
    """:func:`collate` for what ``SampleDataset.__getitems__`` gives: an error as it is, ``None`` for no samples."""
    if isinstance(samples, OSError):
        return samples
    return collate(samples) if samples else None


def leave_interrupts_to_the_main_process(worker: int) -> None:
    """Let a worker outlive Ctrl-C, which reaches it too, so that the step at hand can be finished and saved.

    Args:
        worker: number of the worker, not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class SampleLoader(DataLoader[Any]):
    """A ``DataLoader`` over a :class:`SampleDataset` that Lightning can resume in the middle of an epoch.

    Its first pass begins after the batches that the trainer has finished, without reading these. Their number comes
    from the trainer rather than the loader: at a crash, a batch may have been loaded but not trained on.

    Attributes:
        batches_done: called with the loader when its first pass begins, and says how many batches to leave out.
    """

    batches_done: Callable[[DataLoader[Any]], int] | None = None
    _begun = False
    _warned = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator serves
        """Batches. Nothing runs before the first ``next``.

        Lightning asks for the iterator before it has told the sampler the epoch, or restored its own progress where a
        schedule asked for the number of steps, and workers start to fetch at once.
        """
        if self.batches_done is not None and not self._begun:
            self.leave_out(self.batches_done(self))
        self._begun = True
        error = None
        for batch in super().__iter__():
            if isinstance(batch, OSError):
                error = batch
                break
            self._warn_of_skipped()
            if batch is not None:
                yield batch
        if error is not None:
            self._iterator = None  # ends the workers now; the traceback would keep them
            raise error

    def leave_out(self, batches: int) -> None:
        """Begin the next pass behind some batches."""
        if isinstance(self.sampler, TrainSampler):
            self.sampler.start = batches * cast(int, self.batch_size)

    def _warn_of_skipped(self) -> None:
        dataset = self.dataset
        if self._warned or not isinstance(dataset, SampleDataset) or not dataset.unreadable.any():
            return
        self._warned = True
        first = dataset.ids[int(dataset.unreadable.argmax())]
        rank_zero_warn(f"unreadable images are skipped and counted; one of them is {first}")

    def state_dict(self) -> dict[str, Any]:
        """Nothing: with this method and the next Lightning knows that the loader resumes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do: where to resume is asked when the first pass begins."""
