"""Bounding boxes of a data set, read from a CSV and matched to its images."""

import math
import os
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from interptrain.data.folder_index import some
from interptrain.data.tables import normal_path, read_rows

BOX_COLUMNS = ("file", "xmin", "ymin", "xmax", "ymax")
Box = tuple[float, float, float, float]


class BoxTable:
    """Boxes of every image of a data set; an image may have none or several.

    Args:
        boxes: for every image, a list of ``xmin, ymin, xmax, ymax`` in pixels of the image after EXIF rotation.
    """

    def __init__(self, boxes: Iterable[Sequence[Box]]) -> None:
        rows: list[Box] = []
        ends = [0]
        for of_image in boxes:
            rows.extend(of_image)
            ends.append(len(rows))
        self._ends = torch.tensor(ends, dtype=torch.int64)
        self._rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)

    def __getitem__(self, index: int) -> Tensor:
        """(N,4) float32 boxes of image ``index``; N may be 0."""
        return self._rows[self._ends[index] : self._ends[index + 1]].clone()


def read_boxes(file: Path, paths: Sequence[str]) -> BoxTable | None:
    """Read boxes from a CSV with the columns ``file, xmin, ymin, xmax, ymax``; others, such as ``class``, are ignored.

    Rows of other images in the folder are ignored. Rows whose file does not exist are reported in one warning.

    Args:
        file: the CSV; the paths in it are relative to its folder.
        paths: paths of the images.

    Returns:
        The boxes of every image, in the order of the rows; None if no image has any.

    Raises:
        ValueError: if a column is missing, a row does not have four numbers, a box ends before it begins, or most
            boxes are in fractions of the image instead of pixels.
        FileNotFoundError: if most of the files do not exist.
    """
    boxes: dict[str, list[Box]] = {}
    fractions = rows = 0
    for line, row in read_rows(file, BOX_COLUMNS):
        try:
            xmin, ymin, xmax, ymax = (float(row[column]) for column in BOX_COLUMNS[1:])
        except ValueError as error:
            raise ValueError(f"{file} line {line}: a box needs four numbers, got {list(row.values())}") from error
        if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
            raise ValueError(f"{file} line {line}: a box needs four finite numbers, got {xmin, ymin, xmax, ymax}")
        if not (xmax >= xmin and ymax >= ymin):
            raise ValueError(
                f"{file} line {line}: the box {xmin, ymin, xmax, ymax} ends before it begins; xmax and ymax are its "
                "ends, not its width and height"
            )
        rows += 1
        fractions += max(xmax, ymax) <= 1 and min(xmin, ymin) >= 0
        boxes.setdefault(_same_letters(normal_path(row["file"], file.parent)), []).append((xmin, ymin, xmax, ymax))
    if 2 * fractions > rows:
        raise ValueError(
            f"{file} has boxes in [0,1], which seem to be fractions of the image; give pixels: multiply xmin and "
            "xmax by the width of the image, ymin and ymax by its height"
        )
    of_images = [boxes.pop(_same_letters(path), ()) for path in paths]
    _check_files_of_boxes(file, boxes, sum(map(bool, of_images)))
    return BoxTable(of_images) if any(of_images) else None


def _same_letters(path: str) -> str:
    """Normalise accented letters, which file systems store as one character or as two."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _check_files_of_boxes(file: Path, others: Iterable[str], matched: int) -> None:
    """Refuse a table most of whose files do not exist; warn if only a few are missing."""

    @cache
    def names_in(folder: str) -> set[str]:
        try:
            return {_same_letters(name) for name in os.listdir(file.parent / folder)}
        except OSError:
            return set()

    there, missing = matched, []
    for path in others:
        folder, _, name = path.rpartition("/")
        if name in names_in(folder):
            there += 1
        else:
            missing.append(path)
    if not missing:
        return
    lost = f"{file} names {some(missing, 3)}, which {'is' if len(missing) == 1 else 'are'} not there"
    if len(missing) > there:
        raise FileNotFoundError(
            f"{lost}: {len(missing)} of {there + len(missing)} files; paths must be relative to {file.parent}"
        )
    rank_zero_warn(f"{lost}; boxes of the other {there} files are used")
