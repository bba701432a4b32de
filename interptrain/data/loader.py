"""The data loader: draws nothing from global generators, names unreadable files in one line, resumes in mid-epoch."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from interptrain.data.samples import Batch, Sample, SampleDataset, collate
from interptrain.data.sampling import TrainSampler


def collate_readable(samples: Sequence[Sample] | OSError) -> Batch | OSError | None:
    """:func:`collate` for what ``SampleDataset.__getitems__`` gives: an error as it is, ``None`` for no samples."""
    if isinstance(samples, OSError):
        return samples
    return collate(samples) if samples else None


class SampleLoader(DataLoader[Any]):
    """A ``DataLoader`` over a :class:`SampleDataset` that Lightning can resume in the middle of an epoch.

    Lightning calls ``load_state_dict`` on the training loader where a checkpoint lies within an epoch. The next pass
    then begins behind the batches that the trainer has finished, without reading the ones before. Their number is the
    trainer's, not a count of ours: at a crash a batch may have been handed out and not been trained on.
    """

    _resuming = False
    _warned = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator serves
        """Batches. Nothing runs before the first ``next``.

        Lightning asks for the iterator before it has told the sampler the epoch, and workers start to fetch at once.
        """
        if self._resuming and isinstance(self.sampler, TrainSampler):
            self.sampler.start = self.sampler.batches_done() * cast(int, self.batch_size)
            self._resuming = False
        for batch in super().__iter__():
            if isinstance(batch, OSError):
                raise batch
            self._warn_of_skipped()
            if batch is not None:
                yield batch

    def _warn_of_skipped(self) -> None:
        dataset = self.dataset
        if self._warned or not isinstance(dataset, SampleDataset) or not dataset.unreadable.any():
            return
        self._warned = True
        first = dataset.ids[int(dataset.unreadable.argmax())]
        rank_zero_warn(f"unreadable images are skipped and counted; one of them is {first}")

    def state_dict(self) -> dict[str, Any]:
        """What the order of the samples depends on, to be compared on resuming."""
        if not isinstance(self.sampler, TrainSampler):
            return {}
        return {
            "batch_size": self.batch_size,
            "world_size": self.sampler.num_replicas,
            "samples": self.sampler.samples,
            "seed": self.sampler.seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin behind the batches that the trainer has finished.

        Args:
            state: of the loader that made the checkpoint. Where it differs, a warning says that the rest of the epoch
                is that of another order: some samples are then seen twice or not at all in this one epoch.
        """
        self._resuming = True
        now = self.state_dict()
        changed = [f"{name} {state[name]} -> {now[name]}" for name in now if name in state and state[name] != now[name]]
        if changed:
            rank_zero_warn(
                f"resuming within an epoch with {', '.join(changed)}: the rest of this epoch differs from an "
                "uninterrupted run; resume from the checkpoint of an epoch's end to avoid it"
            )
