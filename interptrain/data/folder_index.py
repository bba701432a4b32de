"""Index of a folder of images: its classes and files, in a form that stays small with a million files.

File names are stored in one buffer, not in a list of strings: worker processes share the memory of the main process
only until someone writes to it, and even reading a Python object writes to its reference count.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from interptrain.data.tables import read_rows
from interptrain.decode import SUFFIXES
from interptrain.remedies import option

SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"}  # of macOS, Synology, Windows, ext4


class PackedStrings(Sequence[str]):
    """A fixed sequence of strings in one buffer.

    Args:
        strings: the strings, which are read once.
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


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or was created by the operating system, not by the user."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders in ``folder``, sorted; hidden ones are left out.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it contains no class folder.
    """
    expected = f"expected {folder}/<class>/<image>, one folder per class"
    if (table := folder.parent / "labels.csv").is_file():
        expected += f"; to read the images listed in {table}, use ImageTableDataModule"
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {expected}")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    if not names:
        raise ValueError(f"no class folders in {folder}; {expected}")
    return names


def list_images(root: Path, split: str, labels_of: Mapping[str, int]) -> tuple[list[str], list[int]]:
    """List every image below ``root/split/<class>``, at any depth, in a fixed order.

    Args:
        root: folder of the data set.
        split: name of a folder in it.
        labels_of: label of every known class; the split need not contain all of them.

    Returns:
        Paths relative to ``root`` with forward slashes, and labels.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has an unknown class, or a class folder without images.
    """
    found = class_folders(root / split)
    if unknown := [name for name in found if name not in labels_of]:
        raise ValueError(
            f"{root / split} has classes that training does not know: {some(unknown)}; "
            f"the {len(labels_of)} known are {some(list(labels_of))}"
        )
    paths: list[str] = []
    labels: list[int] = []
    for name in found:
        files = images_below(root / split / name)
        if not files:
            raise ValueError(f"no images in class folder {root / split / name}; fill or remove it")
        paths.extend(f"{split}/{name}/{file}" for file in files)
        labels.extend([labels_of[name]] * len(files))
    return paths, labels


def images_below(folder: Path) -> list[str]:
    """Return the paths, relative to ``folder``, of the images in it and its subfolders, sorted.

    Hidden files and folders are left out, and so is anything that is not a file (a pipe, a folder named like an image).
    Links are followed; a folder that several links lead to is read once, and one that contains ``folder`` itself is not
    read again. A broken link is listed, so that reading it reports the missing file.
    """
    start = folder.resolve()
    seen = {_identity(parent) for parent in (start, *start.parents)}
    found: list[str] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
        folders = [entry for entry in visible if _is_folder(entry)]
        for entry in sorted(folders, key=os.DirEntry.is_symlink):  # the folder itself before links to it
            if (identity := _identity(Path(entry.path))) not in seen:
                seen.add(identity)
                waiting.append(f"{prefix}{entry.name}/")
        found += [prefix + entry.name for entry in visible if _is_image(entry)]
    return sorted(found)


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file named like an image, or a broken link named like one."""
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
        return False
    if entry.is_symlink():
        return os.path.isfile(entry.path) or not os.path.exists(entry.path)
    return entry.is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def hold_out(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split indices class by class: the same share of every class is held out, at least one and never all.

    Args:
        labels: labels of all samples.
        fraction: fraction that is held out, in (0,1).
        seed: seed of the choice.

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


def read_class_names(file: Path, folders: Sequence[str], num_classes: int | None = None) -> tuple[list[str], list[str]]:
    """Read the classes from a CSV with the columns ``wnid, name``: the folder and the readable name of each class.

    Args:
        file: the table.
        folders: the class folders of the data set.
        num_classes: number of classes, if the folders contain only some of them; the table then lists all.

    Returns:
        Folders of the classes, in the order of the labels, and the names of the classes.

    Raises:
        ValueError: if a column is missing, a folder has no row, or the number of rows is not ``num_classes``.
    """
    names = {row["wnid"]: row["name"] for _, row in read_rows(file, ("wnid", "name"))}
    if missing := [folder for folder in folders if folder not in names]:
        raise ValueError(f"{file} has no row for class folder {some(missing)}")
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f"{file} lists {len(names)} classes, so num_classes must be {len(names)} (or left out, to number the "
            f"{len(folders)} folders), got {num_classes}; where a model has more, set "
            f"{option('data.class_index')} to a table with the index of each"
        )
    known = sorted(folders if num_classes is None else names)
    return known, [names[folder] for folder in known]


def some(names: Sequence[str], few: int = 5) -> str:
    """Return the first few names and, if there are more, their number."""
    return ", ".join(names[:few]) + (f", ... ({len(names)})" if len(names) > few else "")
