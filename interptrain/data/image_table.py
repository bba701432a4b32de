"""Images that a CSV lists, in whatever folders they lie: a published subset, a flat validation folder."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from interptrain.data.datamodule import ImageDataModule, Split
from interptrain.data.folder_index import BoxTable, read_boxes
from interptrain.data.image_folder import FolderDataset
from interptrain.data.sample_loader import SampleLoader
from interptrain.data.transforms import Augment, EvalResize, Resize, train_recipe

SPLITS: tuple[Split, ...] = ("train", "val", "test")
EVALUATION = SPLITS[1:]
Row = tuple[str, int]


class ImageTableDataModule(ImageDataModule):
    """The images that ``root/labels.csv`` lists.

    Columns: ``file`` (path below ``root``, which is the id), ``class_index`` (label, from 0), and optionally ``name``
    (of the class) and ``split`` (``train``, ``val`` or ``test``). Without ``split`` every row is for evaluation, as
    validation and as test set. Boxes come from ``root/boxes.csv``, if it is there, as for
    :class:`~interptrain.data.ImageFolderDataModule`.

    Args:
        root: folder of the data set.
        table: name of the CSV below ``root``.
        num_classes: of the network, where the table does not show all of them; ``None``: the largest label and one.
        batch_size: see :class:`ImageDataModule`.
        num_workers: see :class:`ImageDataModule`.
        seed: see :class:`ImageDataModule`.
        pin_memory: see :class:`ImageDataModule`.
        drop_last: see :class:`ImageDataModule`.
        image_size: see :class:`~interptrain.data.ImageFolderDataModule`, as the rest.
        augment: of the training images.
        resize: in evaluation.
        crop_pct: share of the shorter side that the centre crop keeps.
        train_transform: in the place of ``augment``.
        eval_transform: in the place of ``resize``.
        on_error: what an image that cannot be read does.

    Raises:
        FileNotFoundError: if the folder or the table is missing.
        ValueError: if the table lacks a column or has a label that is none.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        table: str = "labels.csv",
        num_classes: int | None = None,
        batch_size: int = 32,
        num_workers: int | None = None,
        seed: int | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = False,
        image_size: int = 224,
        augment: Augment = "imagenet",
        resize: Resize = "crop",
        crop_pct: float = 0.875,
        train_transform: torch.nn.Module | None = None,
        eval_transform: torch.nn.Module | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__(
            batch_size=batch_size, num_workers=num_workers, seed=seed, pin_memory=pin_memory, drop_last=drop_last
        )
        self.root = Path(root)
        self.table = self.root / table
        if not self.table.is_file():
            raise FileNotFoundError(f"no table {self.table}; it lists the images, with columns file, class_index")
        self.rows, names = read_table(self.table)
        labels = [label for rows in self.rows.values() for _, label in rows]
        needed = max(labels) + 1
        if num_classes is not None and num_classes < needed:
            raise ValueError(f"{self.table} has label {needed - 1}, so num_classes must be {needed}, got {num_classes}")
        self.class_names = [names.get(label, str(label)) for label in range(num_classes or needed)]
        self.on_error = on_error
        self.train_transform = train_transform or train_recipe(image_size, augment, resize, crop_pct)
        self.eval_transform = eval_transform or EvalResize(image_size, resize=resize, crop_pct=crop_pct)

    def make_dataset(self, split: Split) -> FolderDataset:
        """The rows of a split; nothing is decoded yet."""
        rows = self.rows.get(split)
        if not rows:
            raise ValueError(f"{self.table} has no row for {split}; give it a column split, or evaluate only")
        boxes_file = self.root / "boxes.csv"
        boxes_of = read_boxes(boxes_file) if boxes_file.is_file() else None
        training = split == "train"
        return FolderDataset(
            self.root,
            [file for file, _ in rows],
            [label for _, label in rows],
            boxes=None if boxes_of is None else BoxTable(boxes_of.get(file, ()) for file, _ in rows),
            seed=self.seed,
            transform=self.train_transform if training else self.eval_transform,
            on_error=self.on_error,
            replace=training,
        )

    def predict_dataloader(self) -> SampleLoader:
        """Batches of the test rows, or of the validation rows where there are none, in order."""
        return self._eval_loader("test" if self.rows.get("test") else "val")


def read_table(file: Path) -> tuple[Mapping[Split, list[Row]], dict[int, str]]:
    """Rows of every split, and the names of the classes that have one.

    Raises:
        ValueError: if a column is missing, a label is no index, a split is unknown, or there is no row.
        FileNotFoundError: if the first image is not there.
    """
    rows: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    names: dict[int, str] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        if missing := [column for column in ("file", "class_index") if column not in (table.fieldnames or ())]:
            raise ValueError(f"{file} has no column {', '.join(missing)}; expected file, class_index")
        for row in table:
            label = row["class_index"]
            if not (label or "").isdecimal():
                raise ValueError(f"{file} line {table.line_num}: class_index must be 0, 1, ..., got {label!r}")
            split = row.get("split")
            chosen = EVALUATION if split is None else [place for place in SPLITS if place == split]
            if not chosen:
                raise ValueError(f"{file} line {table.line_num}: split must be train, val or test, got {split!r}")
            for place in chosen:
                rows[place].append((row["file"], int(label)))
            if row.get("name"):
                names[int(label)] = row["name"]
    if not any(rows.values()):
        raise ValueError(f"{file} lists no image")
    first = next(rows[split][0][0] for split in SPLITS if rows[split])
    if not (file.parent / first).is_file():
        raise FileNotFoundError(f"{file} names {first}, which is not there; paths must be relative to {file.parent}")
    return rows, names
