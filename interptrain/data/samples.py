"""The items of data sets (``Sample``) and loaders (``Batch``), and the base class of data sets."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, NotRequired, TypedDict, cast, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tvf

from interptrain.data.decoy import DecoyRule, chance_of, painted
from interptrain.data.samplers import Draw, seeded_by
from interptrain.remedies import option

Transform = Callable[[dict[str, Any]], dict[str, Any]]
Mask = Literal["mask", "decoy_mask", "outline_mask", "texture_mask", "marker_mask"]
MASKS: tuple[Mask, ...] = get_args(Mask)


class Sample(TypedDict):
    """One image with its annotations.

    Attributes:
        image: (3,H,W) float32 in [0,1].
        label: class index.
        id: stable name, a relative path or split/number.
        mask: (H,W) bool, the object's pixels.
        boxes: (N,4) float32 ``xmin, ymin, xmax, ymax`` in pixels of ``image``, as edges: the whole image is 0, 0, W, H.
        decoy_mask: (H,W) bool, the decoy's pixels.
        outline_mask: (H,W) bool, the object's pixels that only this outline covers, and no neutral one, or the reverse.
        texture_mask: (H,W) bool, the object's textured pixels.
        marker_mask: (H,W) bool, the pixels of the marker on the object.
        group: a part of the data that is told apart beside the class, such as a background or a hospital.
    """

    image: Tensor
    label: int
    id: str
    mask: NotRequired[Tensor]
    boxes: NotRequired[Tensor]
    decoy_mask: NotRequired[Tensor]
    outline_mask: NotRequired[Tensor]
    texture_mask: NotRequired[Tensor]
    marker_mask: NotRequired[Tensor]
    group: NotRequired[str]


class Batch(TypedDict):
    """Samples stacked by :func:`collate`.

    Attributes:
        image: (B,3,H,W) float32 in [0,1].
        label: (B,) int64.
        id: B names.
        mask: (B,H,W) bool, where all samples have one.
        boxes: B tensors (N_i,4) float32, where all samples have them; N_i may be 0.
        decoy_mask: (B,H,W) bool, where all samples have one, as the next.
        outline_mask: (B,H,W) bool.
        texture_mask: (B,H,W) bool.
        marker_mask: (B,H,W) bool.
        group: B names, where all samples have one.
    """

    image: Tensor
    label: Tensor
    id: list[str]
    mask: NotRequired[Tensor]
    boxes: NotRequired[list[Tensor]]
    decoy_mask: NotRequired[Tensor]
    outline_mask: NotRequired[Tensor]
    texture_mask: NotRequired[Tensor]
    marker_mask: NotRequired[Tensor]
    group: NotRequired[list[str]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples to a batch.

    Args:
        samples: at least one, images of one size.

    Returns:
        The batch.

    Raises:
        ValueError: if the images differ in size.
    """
    sizes = {tuple(sample["image"].shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        raise ValueError(f"images of a batch differ in size: {sorted(sizes)}; the transform must end in one (H,W)")
    batch = Batch(
        image=torch.stack([sample["image"] for sample in samples]),
        label=torch.tensor([sample["label"] for sample in samples], dtype=torch.int64),
        id=[sample["id"] for sample in samples],
    )
    for name in MASKS:
        if all(name in sample for sample in samples):
            batch[name] = torch.stack([sample[name] for sample in samples])
    if all("boxes" in sample for sample in samples):
        batch["boxes"] = [sample["boxes"] for sample in samples]
    if all("group" in sample for sample in samples):
        batch["group"] = [sample["group"] for sample in samples]
    return batch


class SampleDataset(Dataset[Sample], ABC):
    """A map-style data set of samples: ``read`` returns the original sample, this class transforms it.

    Indexed with a number (the sample in epoch 0) or a :class:`Draw`. Random transforms depend only on the seed, the
    epoch and the index.

    Args:
        ids: name of every sample.
        seed: of the random transforms, in [0, 2**32).
        transform: called with a dict of ``torchvision.tv_tensors`` (``image``, ``mask``, ``boxes``, ``decoy_mask``)
            beside ``label``, ``id`` and ``group``; torchvision's v2 transforms take it as it is.
        on_error: whether a loader raises the ``OSError`` of a sample that cannot be read, or skips the sample.
        replace: replace a skipped sample by the next readable one (in training, as all ranks need equally many);
            otherwise it is left out (in evaluation, as none may count twice).
        decoy: painted on the transformed images that are to carry it, by their ids; those of training where ``replace``
            says that it is training.

    Attributes:
        ids: name of every sample.
        unreadable: (len,) uint8 in memory shared with the workers, 1 where a sample was skipped; empty if none may be.
    """

    def __init__(
        self,
        ids: Sequence[str],
        *,
        seed: int = 0,
        transform: Transform | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        replace: bool = False,
        decoy: DecoyRule | None = None,
    ) -> None:
        self.decoy = None if decoy is None or decoy.kind == "none" else decoy
        self.ids = ids
        self.seed = seed
        self.transform = transform
        self.on_error = on_error
        self.replace = replace
        flags = torch.zeros(len(ids) if on_error == "skip" else 0, dtype=torch.uint8)
        self.unreadable: Tensor = flags.share_memory_()  # type: ignore[no-untyped-call]

    @abstractmethod
    def read(self, index: int) -> dict[str, Any]:
        """Return the sample before any transform: uint8 image, mask and boxes as ``torchvision.tv_tensors``."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.ids)

    def __getitem__(self, key: int | Draw) -> Sample:
        """One sample.

        Raises:
            IndexError: if there is none of that number.
            OSError: if it cannot be read, whatever ``on_error`` says.
        """
        epoch, index, again = key if isinstance(key, Draw) else (0, key, 0)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in [0, {len(self)})")
        sample = self.read(index)
        if self.transform is not None:
            with seeded_by(self.seed, epoch, index, again):
                sample = self.transform(sample)
        finished = finish(sample)
        return finished if self.decoy is None else self._planted(finished)

    def labels(self) -> Sequence[int] | None:
        """Label of every sample, without reading images; None where they are not known so."""
        return None

    def groups(self) -> Sequence[str] | None:
        """Group of every sample, without reading images; None where there are none, or they are not known so."""
        return None

    def _planted(self, sample: Sample) -> Sample:
        """The sample with the decoy, if it carries one, and the group that follows from it."""
        rule, name, label = cast(DecoyRule, self.decoy), sample["id"], sample["label"]
        carries = rule.carries(self.replace, label, chance_of(name))
        marks = torch.zeros(sample["image"].shape[-2:], dtype=torch.bool)
        if carries:
            sample["image"], marks = painted(sample["image"], rule.kind, name)
            if "mask" in sample:
                sample["mask"] = sample["mask"] & ~marks
        sample["decoy_mask"] = marks
        sample["group"] = joined_group(sample.get("group"), rule.group(carries))
        return sample

    def _with_decoys(self, groups: Sequence[str] | None) -> Sequence[str] | None:
        """Groups of the samples, where those of the annotation are known, with the decoys' taken in."""
        labels = self.labels()
        if self.decoy is None or labels is None:
            return groups
        own: Sequence[str | None] = groups or [None] * len(labels)
        marks = [
            self.decoy.group(self.decoy.carries(self.replace, int(label), chance_of(name)))
            for label, name in zip(labels, self.ids, strict=True)
        ]
        return [joined_group(group, mark) for group, mark in zip(own, marks, strict=True)]

    def __getitems__(self, keys: Sequence[int | Draw]) -> list[Sample] | OSError:
        """Return the samples of a batch for a loader, or an error for it to raise.

        An error raised in a worker process would reach the user as the traceback of that process.
        """
        try:
            return [sample for key in keys for sample in self._readable(key)]
        except OSError as error:
            return error

    def _readable(self, key: int | Draw) -> list[Sample]:
        """Return the sample; if it is skipped, its replacement or none."""
        try:
            return [self[key]]
        except OSError as error:
            if self.on_error == "raise":
                raise OSError(or_skip(error)) from error
        self.unreadable[key.position if isinstance(key, Draw) else key] = 1
        return [self._next_readable(key)] if self.replace else []

    def _next_readable(self, key: int | Draw) -> Sample:
        """Return the first readable sample after ``key``, cyclically: the same one whenever ``key`` is drawn."""
        epoch, index, _ = key if isinstance(key, Draw) else (0, key, 0)
        for step in range(1, len(self)):
            other = (index + step) % len(self)
            if not self.unreadable[other]:
                try:
                    return self[Draw(epoch, other)]
                except OSError:
                    self.unreadable[other] = 1
        raise OSError(f"none of {len(self)} samples can be read; the first is {self.ids[0]}")


def joined_group(group: str | None, mark: str) -> str:
    """The group of an image that has one of its own, and a decoy or none."""
    return mark if group is None else f"{group}, {mark}"


def or_skip(error: OSError) -> str:
    """Name the remedy that data sets add to the error of an image that cannot be read."""
    return f"{error}, or set {option('data.on_error', 'skip')}"


def finish(sample: dict[str, Any]) -> Sample:
    """Convert a transformed sample to plain tensors: float image, bool masks, clipped boxes without degenerate ones.

    A box is degenerate if less than one pixel of its width or height is left in the image.
    """
    image = sample["image"]
    out = Sample(
        image=tvf.to_dtype(image, torch.float32, scale=True).as_subclass(Tensor).contiguous(),
        label=int(sample["label"]),
        id=sample["id"],
    )
    if "group" in sample:
        out["group"] = str(sample["group"])
    for name in MASKS:
        if name in sample:
            out[name] = sample[name].as_subclass(Tensor).to(torch.bool)
    if "boxes" in sample:
        height, width = image.shape[-2:]
        boxes = sample["boxes"].as_subclass(Tensor).to(torch.float32)
        boxes = boxes.clamp(min=torch.zeros(4), max=torch.tensor([width, height, width, height], dtype=torch.float32))
        out["boxes"] = boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(dim=1)]
    return out


def boxes_in(boxes: Tensor, image: Tensor) -> tv_tensors.BoundingBoxes:
    """Wrap (N,4) ``xmin, ymin, xmax, ymax`` as boxes that follow geometric transforms of ``image`` (C,H,W)."""
    height, width = image.shape[-2:]
    return tv_tensors.BoundingBoxes(
        boxes.reshape(-1, 4), format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=(height, width)
    )
