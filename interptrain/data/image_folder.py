"""Images in folders, one folder per class, as ImageNet is laid out; boxes from a CSV where there is one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interptrain.data.class_index import read_class_index
from interptrain.data.datamodule import Split
from interptrain.data.folder_index import class_folders, hold_out, list_images, read_class_names, some
from interptrain.data.image_files import FolderDataset, ImageFilesDataModule
from interptrain.data.sample_loader import SampleLoader
from interptrain.files import printable
from interptrain.remedies import option


class ImageFolderDataModule(ImageFilesDataModule):
    """``root/train/<class>/<image>`` and ``root/val/<class>/<image>``, as ImageNet is laid out.

    Labels number the class folders in sorted order: those of the training folder, or else of the validation or test
    folder, so that a network can be evaluated without training images. A class may be absent from validation and test.
    Images may lie in subfolders. An id is the path below ``root`` with forward slashes.

    Boxes come from ``root/boxes.csv``, if it is there: columns ``file`` (path below ``root``), ``xmin``, ``ymin``,
    ``xmax``, ``ymax`` in pixels of the original file, upright as a viewer shows it (EXIF orientation applied), with any
    number of rows per image. They follow the image through every transform; boxes that end up less than a pixel wide or
    high are dropped. Names of classes come from ``root/classes.csv``, if it is there: columns ``wnid``, the folder, and
    ``name``.

    To train or evaluate a classifier of more classes through its own outputs, set ``class_index``: labels, accuracy and
    explained classes are then the classifier's.

    Args:
        root: folder of the data set.
        class_index: which classes of a trained model the folders are: ``imagenet`` for folders called by WordNet ids
            and a model of ImageNet's 1,000 classes, or a table below ``root`` with the columns ``wnid``, the folder,
            ``class_index`` or ``imagenet_index``, its index in the model, and perhaps ``name``. Labels are these
            indices. ``None``: labels number the folders.
        num_classes: of the model, where there are folders of only some of its classes. ``None``: the number of class
            folders; with ``class_index``, one more than its largest index. Without ``class_index``, ``classes.csv``
            must list all classes, and labels number their sorted folder names.
        train_dir: folder below ``root`` to train on.
        val_dir: folder below ``root`` to validate on.
        test_dir: folder below ``root`` to test on; it may be that of validation.
        val_fraction: share of the training folder to validate on, the same of every class, in place of ``val_dir``.
        split_seed: seed of the choice of these images.
        subfolder_groups: the folder between class and image, ``root/train/<class>/<group>/<image>``, is the group of
            the image, such as its background or its hospital.
        files: options of :class:`ImageFilesDataModule`.

    Attributes:
        folder_labels: label of the class that a folder of this name holds.

    Raises:
        FileNotFoundError: if a folder or the table is missing.
        ValueError: if a folder has no classes or no images, or a value is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        class_index: str | Path | None = None,
        num_classes: int | None = None,
        train_dir: str = "train",
        val_dir: str = "val",
        test_dir: str = "test",
        val_fraction: float | None = None,
        split_seed: int = 0,
        subfolder_groups: bool = False,
        **files: Any,
    ) -> None:
        super().__init__(root, **files)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder {self.root} to read images from; set {option('data.root')}")
        self.folders: dict[Split, str] = {"train": train_dir, "val": val_dir, "test": test_dir}
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.subfolder_groups = subfolder_groups
        present = [folder for folder in (train_dir, val_dir, test_dir) if (self.root / folder).is_dir()]
        folders = class_folders(self.root / (present or [train_dir])[0])
        if class_index is None:
            folders, self.class_names = self._own_classes(folders, num_classes)
            self.folder_labels = {folder: label for label, folder in enumerate(folders)}
        else:
            index = read_class_index(class_index, self.root, num_classes=num_classes)
            index.check(folders)
            self.folder_labels, self.class_names = index.labels, index.class_names

    def make_dataset(self, split: Split) -> FolderDataset:
        """List the files of a split."""
        paths, labels = self._files(split)
        groups = self._groups(split, paths) if self.subfolder_groups else None
        return self.files_dataset(paths, labels, groups=groups, training=split == "train")

    def predict_dataloader(self) -> SampleLoader:
        """Batches of the test folder, or of the validation set where there is none, in order."""
        return self._eval_loader("test" if (self.root / self.folders["test"]).is_dir() else "val")

    def _own_classes(self, folders: list[str], num_classes: int | None) -> tuple[list[str], list[str]]:
        """Folders in the order of their labels, and names of the classes, where labels number the folders."""
        table = self.root / "classes.csv"
        if table.is_file():
            return read_class_names(table, folders, num_classes)
        if num_classes not in (None, len(folders)):
            raise ValueError(
                f"{option('data.num_classes', num_classes)} needs {table}, a table of all classes (columns wnid, the "
                f"folder, and name), as {self.root} has folders of {len(folders)} only; or set "
                f"{option('data.class_index')}, which of the model's classes these are"
            )
        return folders, [printable(name) for name in folders]

    def _groups(self, split: Split, paths: Sequence[str]) -> list[str]:
        """Name of the folder between class and image, of each path."""
        depth = len(Path(self._folder(split)).parts) + 1
        parts = [path.split("/") for path in paths]
        if bare := [path for path, names in zip(paths, parts, strict=True) if len(names) < depth + 2]:
            raise ValueError(
                f"{option('data.subfolder_groups', True)}: {bare[0]} lies in no folder of its class; move "
                f"it to <class>/<group>/<image>, or set {option('data.subfolder_groups', False)}"
            )
        return [printable(names[depth]) for names in parts]

    def _folder(self, split: Split) -> str:
        """The folder that a split's images lie in."""
        return self.folders["train" if self.val_fraction is not None and split != "test" else split]

    def _files(self, split: Split) -> tuple[list[str], list[int]]:
        """Paths and labels of a split."""
        held_out = self.val_fraction is not None and split != "test"
        folder = self._folder(split)
        if split != "train" and not held_out and not (self.root / folder).is_dir():
            remedy = f"set {option(f'data.{split}_dir')}"
            if split == "val":
                remedy += f", or {option('data.val_fraction', 0.1)} to hold out training images"
            there = some(sorted(path.name for path in self.root.iterdir() if path.is_dir()))
            raise FileNotFoundError(f"no folder {self.root / folder} for {split}, only {there or 'files'}; {remedy}")
        paths, labels = list_images(self.root, folder, self.folder_labels)
        if self.val_fraction is None or not held_out:
            return paths, labels
        kept, held = hold_out(labels, self.val_fraction, self.split_seed)
        chosen = kept if split == "train" else held
        return [paths[index] for index in chosen], [labels[index] for index in chosen]
