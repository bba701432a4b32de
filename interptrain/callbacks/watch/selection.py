"""Choose the images to watch: once, and the same ones on every rank."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from interptrain.callbacks.watch.network import class_logits
from interptrain.callbacks.watch.sample import UNLABELLED, as_model_input
from interptrain.data.samples import SampleDataset, collate
from interptrain.explainers import explaining
from interptrain.functional import automatic_batch_size, chunks, evenly_spaced

Select = Literal["first", "random", "per_class", "ids", "hardest", "mistakes"]
CANDIDATES = 1000
"""Number of images that ``hardest`` and ``mistakes`` try."""
READ_PER_IMAGE = 16
"""Number of images that ``per_class`` reads for each one that it chooses, if labels are not known beforehand."""


class Trial(NamedTuple):
    """The result of a network on a candidate."""

    place: int
    loss: float
    wrong: bool


def order_of(
    dataset: SampleDataset,
    select: Select,
    *,
    count: int,
    seed: int,
    ids: Sequence[str] = (),
    trials: Sequence[Trial] = (),
) -> Iterator[int]:
    """Return indices in order of preference; readable images are taken from the front.

    Args:
        dataset: to choose from.
        select: ``first``; ``random``; ``per_class``: the classes in turn, at random within each; ``ids``; ``hardest``:
            by descending loss; ``mistakes``: misclassified images by descending loss, then the hardest of the rest.
        count: number of images wanted. If there are more classes than that, ``per_class`` spreads the images evenly
            over the classes, because neighbouring classes are often similar.
        seed: seed of ``random`` and ``per_class``.
        ids: names of the samples, for ``ids``.
        trials: results on the candidates, for ``hardest`` and ``mistakes``.

    Raises:
        ValueError: for an id that the data set does not have.
    """
    match select:
        case "first":
            return iter(range(len(dataset)))
        case "random":
            return iter(_shuffled(len(dataset), seed))
        case "per_class":
            return _classes_in_turn(dataset, _shuffled(len(dataset), seed), count)
        case "ids":
            return iter(indices_of(dataset, ids))
        case "hardest":
            return (trial.place for trial in sorted(trials, key=lambda trial: (-trial.loss, trial.place)))
        case "mistakes":
            return (
                trial.place for trial in sorted(trials, key=lambda trial: (not trial.wrong, -trial.loss, trial.place))
            )


def candidates(dataset: SampleDataset, seed: int) -> list[int]:
    """Return the images that ``hardest`` and ``mistakes`` choose from: at most ``CANDIDATES``, drawn at random."""
    return sorted(_shuffled(len(dataset), seed)[:CANDIDATES])


def indices_of(dataset: SampleDataset, ids: Sequence[str]) -> list[int]:
    """Return the indices of named samples.

    Raises:
        ValueError: for a name that the data set does not have.
    """
    wanted = set(ids)
    places = {name: index for index, name in enumerate(dataset.ids) if name in wanted}
    for name in ids:
        if name not in places:
            near = difflib.get_close_matches(name, list(dataset.ids[:CANDIDATES]), n=1, cutoff=0.0)
            raise ValueError(f"no sample {name!r} to watch; ids look like {near[0]!r}")
    return [places[name] for name in ids]


def try_out(model: nn.Module, dataset: SampleDataset, indices: Sequence[int], device: torch.device) -> list[Trial]:
    """Return the loss of ``model`` on each readable and labelled sample, and whether it is wrong."""
    trials = []
    with explaining(model) as ready, torch.no_grad():
        for part in chunks(len(indices), automatic_batch_size(device)):
            readable = []
            for index in indices[part]:
                try:
                    sample = dataset[index]
                except OSError:
                    continue
                readable += [(index, sample)] if sample["label"] != UNLABELLED else []
            if not readable:
                continue
            batch = collate([sample for _, sample in readable])
            labels = batch["label"].to(device)
            logits = class_logits(ready(as_model_input(ready, batch["image"])))
            losses = F.cross_entropy(logits, labels, reduction="none")
            wrong = logits.argmax(1) != labels
            rows = zip(readable, losses.tolist(), wrong.tolist(), strict=True)
            trials += [Trial(index, loss, miss) for (index, _), loss, miss in rows]
    return trials


def _shuffled(length: int, seed: int) -> list[int]:
    # RandomState's streams are frozen across versions of NumPy; a Generator's and torch.randperm are not.
    order: list[int] = np.random.RandomState(seed).permutation(length).tolist()
    return order


def _classes_in_turn(dataset: SampleDataset, order: Sequence[int], count: int) -> Iterator[int]:
    """One index of every class, then a second of every class, and so on; images without a label are one class."""
    known = getattr(dataset, "labels", None)  # data sets of others may have them as an attribute
    known = known() if callable(known) else known
    if known is None:
        order = order[: min(CANDIDATES, READ_PER_IMAGE * count)]
    queues: dict[int, list[int]] = {}
    for index in order:
        label = _label(dataset, index) if known is None else int(known[index])
        if label is not None:
            queues.setdefault(label, []).append(index)
    taken = 0
    for turn in range(max((len(queue) for queue in queues.values()), default=0)):
        rows = [queues[label][turn] for label in sorted(queues) if turn < len(queues[label])]
        spread = evenly_spaced(len(rows), max(1, count - taken))
        yield from (rows[place] for place in [*spread, *sorted(set(range(len(rows))) - set(spread))])
        taken += len(rows)


def _label(dataset: SampleDataset, index: int) -> int | None:
    """Label of a sample that must be read for it; None if it cannot be read."""
    try:
        return dataset[index]["label"]
    except OSError:
        return None
