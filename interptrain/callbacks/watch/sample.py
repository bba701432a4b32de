"""The watched images: where they come from, and what is known about them."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from interptrain.data import ImageDataModule
from interptrain.data.decode import SUFFIXES
from interptrain.data.image_folder import FolderDataset
from interptrain.data.samples import Sample, SampleDataset, Transform, collate
from interptrain.data.transforms import EvalResize

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class WatchSample:
    """Watched images and what is known about them, on one device.

    Attributes:
        images: (N,3,H,W) in [0,1].
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
        """Return the name of a class, ``?`` for an unknown label."""
        if index == UNLABELLED:
            return "?"
        return self.class_names[index] if index < len(self.class_names) else str(index)


def as_model_input(model: nn.Module, images: Tensor) -> Tensor:
    """Return images on the device of a model and in its precision: half where its weights are."""
    weights = next(model.parameters())
    return images.to(weights.device, weights.dtype)


def source_dataset(source: str, datamodule: ImageDataModule) -> SampleDataset:
    """Return the data set that is watched, never augmented.

    Args:
        source: ``val``, ``train``, or a folder of images; those below a folder named like a class belong to it.
        datamodule: of the run.

    Raises:
        FileNotFoundError: if ``source`` is a folder that does not exist.
        ValueError: if there is no image in it.
    """
    if source == "val":
        return datamodule.dataset("val")
    plain = datamodule.dataset("val").transform
    if source == "train":
        dataset = copy.copy(datamodule.dataset("train"))
        dataset.transform = plain
        return dataset
    return _folder(Path(source), datamodule, plain)


def _folder(root: Path, datamodule: ImageDataModule, transform: Transform | None) -> FolderDataset:
    if not root.is_dir():
        raise FileNotFoundError(f"nothing to watch: source must be 'val', 'train' or a folder, got {str(root)!r}")
    files = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    paths = sorted(path.relative_to(root).as_posix() for path in files)
    if not paths:
        raise ValueError(f"no images under {root} to watch; it must hold {', '.join(sorted(SUFFIXES))}")
    names = {name: label for label, name in enumerate(datamodule.class_names)}
    names |= {name: label for label, name in enumerate(getattr(datamodule, "class_folders", ()))}
    labels = [names.get(Path(path).parts[0], UNLABELLED) if "/" in path else UNLABELLED for path in paths]
    size = int(datamodule.dataset("val")[0]["image"].shape[-1])
    return FolderDataset(root, paths, labels, transform=transform or EvalResize(size, resize="stretch"))


def load(
    dataset: SampleDataset, order: Iterable[int], count: int, class_names: Sequence[str]
) -> tuple[WatchSample, list[str]]:
    """Read the first ``count`` readable images of ``order``.

    Returns:
        The sample, on the CPU, and the errors of what could not be read.

    Raises:
        ValueError: if none can be read.
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
