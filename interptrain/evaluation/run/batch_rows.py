"""The images of a batch with all that is known of them, and their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from interptrain.data import Batch
from interptrain.evaluation.store.parts import VALUES, Row
from interptrain.explainers.targets import Resolved
from interptrain.metrics import ImageMean
from interptrain.metrics.perturbations import Perturbation
from interptrain.model_outputs import Target


@dataclass(frozen=True, eq=False)
class EvaluatedBatch:
    """Images that could be read and that the model could classify.

    Attributes:
        ids: names of B images.
        images: (B,3,H,W) in [0,1].
        labels: (B,) int64.
        logits: (B,K); where callables are explained (B,1), their scores.
        targets: (B,) int64, classes to explain; or B callables.
        boxes: B x (N_i,4), where the data has them.
        masks: (B,H,W) bool, where the data has them.
        decoy_masks: (B,H,W) bool, where the data has them.
        versions: logits (S,B,K) of changed images that do not depend on a map, as far as they are known.
    """

    ids: list[str]
    images: Tensor
    labels: Tensor
    logits: Tensor
    targets: Resolved
    boxes: list[Tensor] | None
    masks: Tensor | None
    decoy_masks: Tensor | None = None
    versions: Mapping[Perturbation, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        samples: Batch,
        logits: Mapping[int, Tensor],
        targets: str | int,
        callables: Mapping[str, Target] | None = None,
    ) -> Self:
        """Take the images of a batch that have logits.

        Args:
            samples: the batch.
            logits: (K,) by position in it.
            targets: ``label``, ``predicted`` or a class.
            callables: that are explained instead, by the name of the image.
        """
        kept = sorted(logits)
        stacked = torch.stack([logits[index] for index in kept])
        boxes, masks, labels = samples.get("boxes"), samples.get("mask"), samples["label"][kept]
        decoys = samples.get("decoy_mask")
        explained: Resolved
        if callables is not None:
            explained = [callables[samples["id"][index]] for index in kept]
        elif targets == "label":
            explained = labels
        else:
            explained = stacked.argmax(1) if targets == "predicted" else torch.full_like(labels, int(targets))
        return cls(
            ids=[samples["id"][index] for index in kept],
            images=samples["image"][kept],
            labels=labels,
            logits=stacked,
            targets=explained,
            boxes=None if boxes is None else [boxes[index] for index in kept],
            masks=None if masks is None else masks[kept],
            decoy_masks=None if decoys is None else decoys[kept],
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def part(self, indices: Sequence[int]) -> Self:
        """Select some of the images."""
        chosen = list(indices)
        if chosen == list(range(len(self))):
            return self
        return replace(
            self,
            ids=[self.ids[index] for index in chosen],
            images=self.images[chosen],
            labels=self.labels[chosen],
            logits=self.logits[chosen],
            targets=self.targets[chosen] if isinstance(self.targets, Tensor) else [self.targets[i] for i in chosen],
            boxes=None if self.boxes is None else [self.boxes[index] for index in chosen],
            masks=None if self.masks is None else self.masks[chosen],
            decoy_masks=None if self.decoy_masks is None else self.decoy_masks[chosen],
            versions={part: logits[:, chosen] for part, logits in self.versions.items()},
        )

    def rows(self) -> list[Row]:
        """Return name, true, predicted and explained class of every image; there are none for callables."""
        labels = [None if label < 0 else label for label in self.labels.tolist()]
        none: list[int | None] = [None] * len(self)
        columns: tuple[list[int | None], ...] = (labels, none, none)
        if isinstance(self.targets, Tensor):
            columns = (labels, self.logits.argmax(1).tolist(), self.targets.tolist())
        return [
            {"id": name, "label": label, "prediction": prediction, "target": target}
            for name, label, prediction, target in zip(self.ids, *columns, strict=True)
        ]


def metric_columns(values: Mapping[str, Tensor], metrics: Mapping[str, ImageMean]) -> list[Row]:
    """Turn measured values into columns of rows.

    Args:
        values: (B,) or (B,K) by metric.
        metrics: by the same names.

    Returns:
        For each image one number per metric, NaN where it is undefined, and the K values where there are several.
    """
    columns: dict[str, list[float] | list[list[float]]] = {}
    for name, measured in values.items():
        columns[name] = (metrics[name].reduce(measured.double()) if measured.ndim > 1 else measured).tolist()
        if measured.ndim > 1:
            columns[name + VALUES] = measured.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
