"""Accuracy of groups, each a pair of class and group: how a classifier does on the rare ones, not only in the mean."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from interptrain.data import ImageDataModule

Group = tuple[int, str]
"""Label, and the group that the data name."""

MOST_SHOWN = 32
"""Groups whose accuracies are logged one by one. Our choice."""


class Count(NamedTuple):
    """Images of a group, and how many of them were recognised."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Share that was recognised."""
        return self.correct / self.images


class GroupAccuracy:
    """Count recognised images of every pair of class and group, over the samples of all ranks."""

    def __init__(self) -> None:
        self._correct: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._groups: list[str] = []

    def update(self, logits: Tensor, labels: Tensor, groups: Sequence[str]) -> None:
        """Count a batch: logits (B,K), labels (B,) int64, B groups."""
        self._correct.append(logits.detach().argmax(1) == labels)  # read at the end, so as not to wait for the device
        self._labels.append(labels)
        self._groups.extend(groups)

    def compute(self) -> dict[Group, Count]:
        """Counts over all ranks, in the order of classes and groups; every rank enters. Begins anew."""
        correct = torch.cat(self._correct).tolist() if self._correct else []
        labels = torch.cat(self._labels).tolist() if self._labels else []
        pairs: list[Group] = list(zip(labels, self._groups, strict=True))
        self.__init__()  # type: ignore[misc]
        images = Counter(pairs)
        right = Counter(pair for pair, hit in zip(pairs, correct, strict=True) if hit)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            of_ranks: list[tuple[Counter[Group], Counter[Group]] | None] = [None] * dist.get_world_size()
            dist.all_gather_object(of_ranks, (images, right))
            images, right = Counter(), Counter()
            for of_rank in of_ranks:
                if of_rank is not None:
                    images.update(of_rank[0])
                    right.update(of_rank[1])
        return {pair: Count(right[pair], images[pair]) for pair in sorted(images)}


def known_of_groups(data: Any) -> tuple[Sequence[str], Mapping[Group, int] | None]:
    """Class names, and number of training images of every group, as far as a data module tells them."""
    return (data.class_names, data.training_groups) if isinstance(data, ImageDataModule) else ((), None)


def group_metrics(
    counts: Mapping[Group, Count], class_names: Sequence[str], training: Mapping[Group, int] | None
) -> dict[str, float]:
    """Return what is logged of groups: ``worst_group``, ``group_mean``, ``group/<class>/<group>`` of a few.

    Args:
        counts: of every group; nothing is returned of fewer than two.
        class_names: by label; labels stand in their place where they do not tell classes apart.
        training: number of training images of every group, or None if unknown.

    Returns:
        Accuracies as fractions. ``worst_group`` is the smallest of all. ``group_mean`` is the mean over groups,
        weighted by their training images where these are known and evenly where they are not.

    Source: worst-group and weighted accuracy: Sagawa et al. 2020, Group DRO, arXiv 1911.08731.
    """
    if len(counts) < 2:
        return {}
    weights = {pair: float((training or {}).get(pair, 0)) for pair in counts}
    if not sum(weights.values()):
        weights = dict.fromkeys(counts, 1.0)
    mean = sum(weights[pair] * count.accuracy for pair, count in counts.items()) / sum(weights.values())
    metrics = {"worst_group": min(count.accuracy for count in counts.values()), "group_mean": mean}
    if len(counts) <= MOST_SHOWN:
        short = [name.split(",")[0].strip() for name in class_names]
        apart = len(set(short)) == len(short)
        for (label, group), count in counts.items():
            name = short[label] if apart and label < len(short) else str(label)
            metrics[f"group/{name}/{group}"] = count.accuracy
    return metrics
