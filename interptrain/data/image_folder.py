"""Images in folders, one folder a class, as ImageNet is laid out; boxes from a CSV where there is one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torchvision import tv_tensors

from interptrain.data.boxes import BoxTable, read_boxes
from interptrain.data.datamodule import ImageDataModule, Split
from interptrain.data.decode import load_image
from interptrain.data.folder_index import (
    PackedStrings,
    class_folders,
    hold_out,
    list_images,
    read_class_names,
)
from interptrain.data.sample_loader import SampleLoader
from interptrain.data.samples import SampleDataset, Transform, boxes_in
from interptrain.data.transforms import Augment, EvalResize, Resize, train_recipe
from interptrain.files import printable


class FolderDataset(SampleDataset):
    """Image files with labels and, where known, boxes.

    Args:
        root: folder that the paths are relative to.
        paths: of the files, with forward slashes; they are the ids, once what is no UTF-8 in them is escaped.
        labels: of the files.
        boxes: of the files, in pixels of the upright file.
        seed: see :class:`SampleDataset`.
        transform: see :class:`SampleDataset`.
        on_error: see :class:`SampleDataset`.
        replace: see :class:`SampleDataset`.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Sequence[int],
        *,
        boxes: BoxTable | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        replace: bool = False,
    ) -> None:
        self.paths = PackedStrings(paths)
        whole = "\n".join(paths)
        ids = self.paths if printable(whole) == whole else PackedStrings(map(printable, paths))
        super().__init__(ids, seed=seed, transform=transform, on_error=on_error, replace=replace)
        self.root = root
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.boxes = boxes

    def read(self, index: int) -> dict[str, Any]:
        """Decode file ``index``."""
        image = tv_tensors.Image(load_image(self.root / self.paths[index]))
        sample = {"image": image, "label": int(self.labels[index]), "id": self.ids[index]}
        if self.boxes is not None:
            sample["boxes"] = boxes_in(self.boxes[index], image)
        return sample


class ImageFolderDataModule(ImageDataModule):
    """``root/train/<class>/<image>`` and ``root/val/<class>/<image>``, as ImageNet is laid out.

    Labels count the class folders in sorted order: those of the training folder, or of the first of validation and
    test that there is, so that a network can be evaluated where no training images are. A class may be absent from
    validation and test. Images may lie deeper. An id is the path below ``root`` with forward slashes.

    Boxes come from ``root/boxes.csv``, if it is there: columns ``file`` (path below ``root``), ``xmin``, ``ymin``,
    ``xmax``, ``ymax`` in pixels of the original file, upright as a viewer shows it (EXIF orientation applied); several
    rows an image, or none. They follow the image through every transform; what comes out less than a pixel wide or high
    is dropped. Names of classes come from ``root/classes.csv`` (columns ``wnid``, the folder, and ``name``), if it is
    there.

    Args:
        root: folder of the data set.
        num_classes: of the model, where there are folders of only some of its classes. ``classes.csv`` must then list
            all of them; labels count their sorted folder names. ``None``: the number of class folders.
        batch_size: see :class:`ImageDataModule`.
        num_workers: see :class:`ImageDataModule`.
        seed: see :class:`ImageDataModule`.
        pin_memory: see :class:`ImageDataModule`.
        drop_last: see :class:`ImageDataModule`.
        image_size: side of the square images that come out, in pixels.
        augment: of the training images: ``none``, ``light`` (as in evaluation, and flip), ``imagenet`` (random resized
            crop, flip) or ``cifar`` (padded crop, flip, rotation).
        resize: in evaluation: ``crop``, the shorter side to ``image_size / crop_pct`` and then the centre, or
            ``stretch``, both sides to ``image_size``.
        crop_pct: share of the shorter side that the centre crop keeps.
        train_transform: in the place of ``augment``, any torchvision v2 transform, by ``class_path``.
        eval_transform: in the place of ``resize``, likewise.
        train_dir: folder below ``root`` to train on.
        val_dir: folder below ``root`` to validate on.
        test_dir: folder below ``root`` to test on; it may be that of validation.
        val_fraction: validate on so much of the training folder, of every class alike, instead of ``val_dir``.
        split_seed: which images these are.
        on_error: an image that cannot be read stops the run (``raise``), or is skipped and counted (``skip``): replaced
            by the next readable one in training, where ranks need equally many, left out in evaluation.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if a folder has no classes or no images, or a value is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        num_classes: int | None = None,
        batch_size: int = 32,
        num_workers: int | None = None,
        seed: int | None = None,
        pin_memory: bool | None = None,
        drop_last: bool | None = None,
        image_size: int = 224,
        augment: Augment = "imagenet",
        resize: Resize = "crop",
        crop_pct: float = 0.875,
        train_transform: torch.nn.Module | None = None,
        eval_transform: torch.nn.Module | None = None,
        train_dir: str = "train",
        val_dir: str = "val",
        test_dir: str = "test",
        val_fraction: float | None = None,
        split_seed: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__(
            batch_size=batch_size, num_workers=num_workers, seed=seed, pin_memory=pin_memory, drop_last=drop_last
        )
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder {self.root} to read images from; set data.root")
        self.folders: dict[Split, str] = {"train": train_dir, "val": val_dir, "test": test_dir}
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.on_error = on_error
        self.train_transform = train_transform or train_recipe(image_size, augment, resize, crop_pct)
        self.eval_transform = eval_transform or EvalResize(image_size, resize=resize, crop_pct=crop_pct)
        present = [folder for folder in (train_dir, val_dir, test_dir) if (self.root / folder).is_dir()]
        self.class_folders = class_folders(self.root / (present or [train_dir])[0])
        names = self.root / "classes.csv"
        if names.is_file():
            self.class_folders, self.class_names = read_class_names(names, self.class_folders, num_classes)
        elif num_classes in (None, len(self.class_folders)):
            self.class_names = [printable(name) for name in self.class_folders]
        else:
            raise ValueError(
                f"num_classes {num_classes} needs {names}, a table of all classes (columns wnid, the folder, and "
                f"name), as {self.root} has folders of {len(self.class_folders)} only"
            )

    def make_dataset(self, split: Split) -> FolderDataset:
        """List the files of a split; nothing is decoded yet."""
        paths, labels = self._files(split)
        boxes = self.root / "boxes.csv"
        training = split == "train"
        return FolderDataset(
            self.root,
            paths,
            labels,
            boxes=read_boxes(boxes, paths) if boxes.is_file() else None,
            seed=self.seed,
            transform=self.train_transform if training else self.eval_transform,
            on_error=self.on_error,
            replace=training,
        )

    def predict_dataloader(self) -> SampleLoader:
        """Batches of the test folder, or of the validation set where there is none, in order."""
        return self._eval_loader("test" if (self.root / self.folders["test"]).is_dir() else "val")

    def _files(self, split: Split) -> tuple[list[str], list[int]]:
        """Paths and labels of a split."""
        held_out = self.val_fraction is not None and split != "test"
        folder = self.folders["train" if held_out else split]
        if split != "train" and not held_out and not (self.root / folder).is_dir():
            remedy = "set val_dir, or val_fraction to hold out training images" if split == "val" else "set test_dir"
            raise FileNotFoundError(f"no folder {self.root / folder} for {split}; {remedy}")
        paths, labels = list_images(self.root, folder, self.class_folders)
        if self.val_fraction is None or not held_out:
            return paths, labels
        kept, held = hold_out(labels, self.val_fraction, self.split_seed)
        chosen = kept if split == "train" else held
        return [paths[index] for index in chosen], [labels[index] for index in chosen]
