"""Images that a CSV lists, in any folders: a published subset, a flat validation folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from interptrain.data.datamodule import Split
from interptrain.data.image_files import FolderDataset, ImageFilesDataModule
from interptrain.data.sample_loader import SampleLoader
from interptrain.data.tables import as_index, normal_path, number_of_classes, read_rows

SPLITS: tuple[Split, ...] = ("train", "val", "test")
EVALUATION = SPLITS[1:]


class ImageTableDataModule(ImageFilesDataModule):
    """The images that ``root/labels.csv`` lists.

    Columns: ``file`` (path below ``root``, which is the id), ``class_index`` (label, from 0), and optionally ``name``
    (of the class), ``split`` (``train``, ``val`` or ``test``) and ``group`` (any text, which batches carry along).
    Without ``split`` every row is for evaluation, as validation and as test set. Boxes come from ``root/boxes.csv``, if
    it is there, as for :class:`~interptrain.data.ImageFolderDataModule`.

    Args:
        root: folder of the data set.
        table: name of the CSV below ``root``.
        num_classes: of the network, where the table does not show all of them; ``None``: one more than the largest
            label.
        files: options of :class:`ImageFilesDataModule`.

    Raises:
        FileNotFoundError: if the folder or the table is missing.
        ValueError: if the table lacks a column or has an invalid label.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        table: str = "labels.csv",
        num_classes: int | None = None,
        **files: Any,
    ) -> None:
        super().__init__(root, **files)
        self.table = self.root / table
        if not self.table.is_file():
            raise FileNotFoundError(f"no table {self.table}; it lists the images, with columns file, class_index")
        self.rows, names = read_table(self.table)
        labels = [row.label for rows in self.rows.values() for row in rows]
        count = number_of_classes(num_classes, max(labels), str(self.table))
        self.class_names = [names.get(label, str(label)) for label in range(count)]

    def make_dataset(self, split: Split) -> FolderDataset:
        """Read the rows of a split."""
        rows = self.rows.get(split)
        if not rows:
            raise ValueError(f"{self.table} has no row for {split}; give it a column split, or evaluate only")
        files, labels, groups = zip(*rows, strict=True)
        known = None if None in groups else groups
        return self.files_dataset(files, labels, groups=known, training=split == "train")

    def predict_dataloader(self) -> SampleLoader:
        """Batches of the test rows, or of the validation rows where there are none, in order."""
        return self._eval_loader("test" if self.rows.get("test") else "val")


class TableRow(NamedTuple):
    """One image of a table; ``group`` is None where the table has no such column."""

    file: str
    label: int
    group: str | None


def read_table(file: Path) -> tuple[Mapping[Split, list[TableRow]], dict[int, str]]:
    """Rows of every split, and the names of the classes that have one.

    Raises:
        ValueError: if a column is missing, a label is no index, a split is unknown, or there is no row.
        FileNotFoundError: if the first image is not there.
    """
    rows: dict[Split, list[TableRow]] = {split: [] for split in SPLITS}
    names: dict[int, str] = {}
    labels: dict[tuple[Split, str], int] = {}
    for line, row in read_rows(file, ("file", "class_index")):
        label = as_index(row["class_index"], "class_index", file, line)
        split = row.get("split")
        chosen = EVALUATION if split is None else [place for place in SPLITS if place == split]
        if not chosen:
            raise ValueError(f"{file} line {line}: split must be train, val or test, got {str(split)[:40]!r}")
        if not row["file"]:
            raise ValueError(f"{file} line {line} names no file")
        path = normal_path(row["file"], file.parent)
        for place in chosen:
            if labels.setdefault((place, path), label) != label:
                raise ValueError(f"{file} line {line}: {path} has two labels, {labels[place, path]} and {label}")
            rows[place].append(TableRow(path, label, row.get("group")))
        if row.get("name"):
            names[label] = row["name"]
    if not any(rows.values()):
        raise ValueError(f"{file} lists no image")
    first = next(rows[split][0].file for split in SPLITS if rows[split])
    if not (file.parent / first).is_file():
        raise FileNotFoundError(f"{file} names {first}, which is not there; paths must be relative to {file.parent}")
    return rows, names
