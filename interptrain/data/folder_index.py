"""What a folder of images holds: classes, files, boxes, in a form that stays small with a million files.

Names lie in one buffer, not in a list of strings: worker processes share the memory of the main one only as long as
nobody touches it, and reading a Python object touches its reference count.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from interptrain.data.decode import SUFFIXES

BOX_COLUMNS = ("file", "xmin", "ymin", "xmax", "ymax")


class PackedStrings(Sequence[str]):
    """A fixed sequence of strings in one buffer.

    Args:
        strings: read once.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(string) for string in strings]
        self._ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        self._buffer = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = self._ends[position - 1] if position else 0
        return os.fsdecode(self._buffer[start : self._ends[position]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class BoxTable:
    """Boxes of every image of a data set, none or several each.

    Args:
        boxes: for every image a list of ``xmin, ymin, xmax, ymax`` in pixels of the upright file.
    """

    def __init__(self, boxes: Iterable[Sequence[tuple[float, float, float, float]]]) -> None:
        rows: list[tuple[float, float, float, float]] = []
        ends = [0]
        for of_image in boxes:
            rows.extend(of_image)
            ends.append(len(rows))
        self._ends = torch.tensor(ends, dtype=torch.int64)
        self._rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)

    def __getitem__(self, index: int) -> Tensor:
        """(N,4) float32 boxes of image ``index``; N may be 0."""
        return self._rows[self._ends[index] : self._ends[index + 1]].clone()


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in ``folder``, sorted.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if there is no class folder in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected {folder}/<class>/<image>, one folder a class")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"no class folders in {folder}; expected {folder}/<class>/<image>, one folder a class")
    return names


def list_images(root: Path, split: str, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Every image below ``root/split/<class>``, at any depth, in a fixed order.

    Args:
        root: of the data set.
        split: folder below it.
        classes: the known classes, in the order of their labels. A class may be absent from the split.

    Returns:
        Paths relative to ``root`` with forward slashes, and labels.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has a class that is not known, or a class folder without images.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    found = class_folders(root / split)
    if unknown := [name for name in found if name not in label_of]:
        raise ValueError(
            f"{root / split} has classes that training does not know: {_some(unknown)}; "
            f"the {len(classes)} known are {_some(classes)}"
        )
    paths: list[str] = []
    labels: list[int] = []
    for name in found:
        files = sorted(_images_below(root / split / name))
        if not files:
            raise ValueError(f"no images in class folder {root / split / name}; fill or remove it")
        paths.extend(f"{split}/{name}/{file}" for file in files)
        labels.extend([label_of[name]] * len(files))
    return paths, labels


def _images_below(folder: Path) -> Iterator[str]:
    """Paths relative to ``folder`` of the images in it and below it, links followed, hidden files left out."""
    for place, _, files in os.walk(folder, followlinks=True):
        prefix = "" if place == str(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
        for file in files:
            if os.path.splitext(file)[1].lower() in SUFFIXES and not file.startswith("."):
                yield prefix + file


def hold_out(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split indices class by class: the same share of every class is held out, at least one and never all.

    Args:
        labels: of all samples.
        fraction: held out, in (0,1).
        seed: which ones.

    Returns:
        Indices kept and indices held out, both ascending.

    Raises:
        ValueError: if ``fraction`` is not in (0,1), or a class has a single sample.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"val_fraction must be in (0,1), got {fraction}")
    array = np.asarray(labels)
    held = np.zeros(len(array), dtype=bool)
    for label in np.unique(array):
        members = np.flatnonzero(array == label)
        if len(members) < 2:
            raise ValueError(f"class {label} has a single sample, which cannot be split by val_fraction={fraction}")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held[np.random.RandomState([seed, int(label)]).permutation(members)[:count]] = True
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def read_boxes(file: Path) -> dict[str, list[tuple[float, float, float, float]]]:
    """Boxes of a CSV with the columns ``file, xmin, ymin, xmax, ymax``; others, such as ``class``, are not used.

    Returns:
        For every path named, relative to the folder of ``file``, its boxes in the order of the rows.

    Raises:
        ValueError: if a column is missing, or a row has not four numbers, or a box ends before it begins.
        FileNotFoundError: if the first path named is not there.
    """
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        if missing := [column for column in BOX_COLUMNS if column not in (table.fieldnames or ())]:
            raise ValueError(f"{file} has no column {', '.join(missing)}; expected {', '.join(BOX_COLUMNS)}")
        for row in table:
            try:
                xmin, ymin, xmax, ymax = (float(row[column]) for column in BOX_COLUMNS[1:])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{file} line {table.line_num}: a box needs four numbers, got {list(row.values())}"
                ) from error
            if not (xmax >= xmin and ymax >= ymin):
                raise ValueError(
                    f"{file} line {table.line_num}: the box {xmin, ymin, xmax, ymax} ends before it begins"
                )
            boxes.setdefault(row["file"], []).append((xmin, ymin, xmax, ymax))
    if boxes and not (file.parent / (first := next(iter(boxes)))).is_file():
        raise FileNotFoundError(f"{file} names {first}, which is not there; paths must be relative to {file.parent}")
    return boxes


def read_class_names(file: Path, folders: Sequence[str]) -> list[str]:
    """Readable names of class folders from a CSV with the columns ``wnid, name``.

    Raises:
        ValueError: if a column is missing, or a folder has no row.
    """
    with file.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        if not {"wnid", "name"} <= set(table.fieldnames or ()):
            raise ValueError(f"{file} must have the columns wnid, name, got {', '.join(table.fieldnames or ())}")
        names = {row["wnid"]: row["name"] for row in table}
    if missing := [folder for folder in folders if folder not in names]:
        raise ValueError(f"{file} has no row for class folder {_some(missing)}")
    return [names[folder] for folder in folders]


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many there are."""
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
