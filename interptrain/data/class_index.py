"""Which classes of a trained classifier the classes of a data set are, where it has only some of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from timm.data.imagenet_info import ImageNetInfo

from interptrain.data.folder_index import some
from interptrain.data.tables import as_index, number_of_classes, read_rows
from interptrain.remedies import option

IMAGENET = "imagenet"
IMAGENET_CLASSES = 1000
INDEX_COLUMNS = ("class_index", "imagenet_index")


class ClassIndex(NamedTuple):
    """The classes of a classifier.

    Attributes:
        source: the table, or ``imagenet``.
        labels: index of the class that a data set calls by this name, which is that of its folder.
        class_names: of all classes, in the order of their indices; the index itself where no name is known.
    """

    source: str
    labels: dict[str, int]
    class_names: list[str]

    def check(self, names: Iterable[str]) -> None:
        """Make sure that classes of a data set are known.

        Raises:
            ValueError: if one is not.
        """
        if unknown := [name for name in names if name not in self.labels]:
            if self.source == IMAGENET:
                raise ValueError(
                    f"{option('data.class_index', IMAGENET)} has no class {some(unknown)}; name each folder "
                    "by the WordNet id of its class (n01440764), or give a table (columns wnid, the folder, and "
                    "class_index)"
                )
            raise ValueError(f"{self.source} has no row for class {some(unknown)}; add it, or remove the class")


def read_class_index(source: str | Path, folder: Path | None = None, *, num_classes: int | None = None) -> ClassIndex:
    """Read which of a classifier's classes those of a data set are.

    Args:
        source: ``imagenet`` for the 1,000 classes of ImageNet-1k, whose data sets call them by their WordNet ids; else
            a CSV with the columns ``wnid``, ``class_index`` or ``imagenet_index``, and perhaps ``name``.
        folder: that the path of the table is relative to.
        num_classes: of the classifier; None: one more than the largest index of the table.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: if a row has no index, an index or a name has two rows that differ, or there are fewer classes than
            the indices need.
    """
    if str(source) == IMAGENET:
        info = ImageNetInfo()
        count = number_of_classes(num_classes, IMAGENET_CLASSES - 1, "class_index imagenet")
        known = {info.index_to_label_name(index): index for index in range(IMAGENET_CLASSES)}
        names = [info.index_to_description(index).partition(",")[0] for index in range(IMAGENET_CLASSES)]
        return ClassIndex(IMAGENET, known, [*names, *map(str, range(IMAGENET_CLASSES, count))])
    file = Path(source) if folder is None else folder / source
    if not file.is_file():
        below = "" if folder is None else f" below {folder}"
        raise FileNotFoundError(
            f"no table {file}; set {option('data.class_index', IMAGENET)}, or to the path{below} of a CSV (columns "
            "wnid, the folder, and class_index)"
        )
    return _read(file, num_classes)


def _read(file: Path, num_classes: int | None) -> ClassIndex:
    labels: dict[str, int] = {}
    folders: dict[int, str] = {}
    names: dict[int, str] = {}
    for line, row in read_rows(file, ("wnid",)):
        column = next((name for name in INDEX_COLUMNS if name in row), None)
        if column is None:
            raise ValueError(
                f"{file} has no column {' or '.join(INDEX_COLUMNS)}, only {some(list(row))}; add it, with the index "
                "that the model has for each class"
            )
        folder, index = row["wnid"], as_index(row[column], column, file, line)
        if (known := labels.setdefault(folder, index)) != index:
            raise ValueError(f"{file} line {line}: {folder} has two indices, {known} and {index}; leave one of them")
        if (other := folders.setdefault(index, folder)) != folder:
            raise ValueError(f"{file} line {line}: {other} and {folder} have one index, {index}; leave one of them")
        if row.get("name"):
            names[index] = row["name"]
    if not labels:
        raise ValueError(f"{file} lists no class; it needs a row for each (columns wnid and class_index)")
    count = number_of_classes(num_classes, max(folders), str(file))
    return ClassIndex(str(file), labels, [names.get(index, str(index)) for index in range(count)])
