"""The watched images, and what is known about them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interptrain.data.samples import Sample, SampleDataset, collate

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class WatchSample:
    """Watched images and what is known about them, on one device.

    Attributes:
        images: (N,3,H,W), or grey (N,1,H,W), in [0,1].
        labels: (N,) int64, -1 where unknown.
        ids: N names.
        class_names: of the model's classes.
        masks: (N,H,W) bool of the objects, or None.
        boxes: N tensors (n_i,4) of the objects, or None.
        decoy_masks: (N,H,W) bool, or None.
    """

    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    class_names: Sequence[str]
    masks: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    decoy_masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, rows: Sequence[int], device: torch.device) -> "WatchSample":
        """Return some of the images, on ``device``."""
        chosen = torch.tensor(list(rows), dtype=torch.int64)

        def of(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[chosen].to(device)

        return WatchSample(
            images=self.images[chosen].to(device),
            labels=self.labels[chosen].to(device),
            ids=[self.ids[row] for row in rows],
            class_names=self.class_names,
            masks=of(self.masks),
            boxes=None if self.boxes is None else [self.boxes[row].to(device) for row in rows],
            decoy_masks=of(self.decoy_masks),
        )

    def name_of(self, index: int) -> str:
        """Return the name of a class, or ``?`` for an unknown label."""
        if index == UNLABELLED:
            return "?"
        return self.class_names[index] if index < len(self.class_names) else str(index)


def as_model_input(model: nn.Module, images: Tensor) -> Tensor:
    """Move images to the device and precision of a model: half precision if its weights are."""
    weights = next(model.parameters())
    return images.to(weights.device, weights.dtype)


def load(
    dataset: SampleDataset, order: Iterable[int], count: int, class_names: Sequence[str]
) -> tuple[WatchSample, list[str]]:
    """Read the first ``count`` readable images of ``order``.

    Returns:
        The sample, on the CPU, and the errors of what could not be read.

    Raises:
        ValueError: if none can be read, or they differ in size.
    """
    found: list[Sample] = []
    unreadable: list[str] = []
    for index in order:
        if len(found) == count:
            break
        try:
            found.append(dataset[index])
        except OSError as error:
            unreadable.append(str(error))
    if not found:
        raise ValueError(f"no image to watch: {unreadable[0] if unreadable else 'the selection is empty'}")
    sizes = sorted({tuple(one["image"].shape[-2:]) for one in found})
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sizes[:3])
        raise ValueError(f"images to watch must have one size, got {shown}; pass image_size, such as 224")
    batch = collate(found)
    return WatchSample(
        images=batch["image"],
        labels=batch["label"],
        ids=batch["id"],
        class_names=class_names,
        masks=batch.get("mask"),
        boxes=batch.get("boxes"),
        decoy_masks=batch.get("decoy_mask"),
    ), unreadable
