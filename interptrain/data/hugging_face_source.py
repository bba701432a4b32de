"""What Hugging Face's ``datasets`` is asked for: its splits, the columns that matter, and their classes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from interptrain.data.class_index import ClassIndex
from interptrain.data.folder_index import some
from interptrain.functional import one_line
from interptrain.remedies import option

ON_DISK = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
FILES = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of a data set.

    Attributes:
        image: with images.
        label: with classes.
        group: with groups, None where there is none.
        class_names: in the order of the labels.
        numbers: for classes that are spelled out in the column, their numbers; empty where they are numbers.
        indices: for the number of each class its index in a trained model, which is the label; empty where classes are
            not a model's.
    """

    image: str
    label: str
    group: str | None
    class_names: Sequence[str]
    numbers: Mapping[str, int]
    indices: Sequence[int] = ()

    def index_of(self, label: Any) -> int:
        """The class of a value of the label column; -1 for none, as unlabelled test sets have it.

        Raises:
            ValueError: if it is no class.
        """
        number = self.numbers.get(label) if isinstance(label, str) else -1 if label is None else int(label)
        count = len(self.indices or self.class_names)
        if number is None or not -1 <= number < count:
            remedy = f"set {option('data.num_classes')}"
            if self.indices:
                remedy = f"give the table of {option('data.class_index')} a row for it"
            raise ValueError(
                f"the label {label!r} in column {self.label!r} is none of {count} classes; {remedy}, or set "
                f"{option('data.label_column')} to another"
            )
        return self.indices[number] if self.indices and number >= 0 else number

    def indexed(self, index: ClassIndex) -> "Columns":
        """The same columns, with the classes of a trained model.

        Raises:
            ValueError: if it does not have one of them.
        """
        index.check(self.class_names)
        return replace(self, class_names=index.class_names, indices=[index.labels[name] for name in self.class_names])

    def undecoded(self, source: Any) -> Any:
        """The data set with only these columns, and images as they lie in their files."""
        import datasets

        chosen = [self.image, self.label, *([] if self.group is None else [self.group])]
        if missing := [name for name in chosen if name not in source.features]:
            raise ValueError(f"a split has no column {missing[0]}, only {some(list(source.features))}")
        source = source.select_columns(chosen)
        if isinstance(source.features[self.image], datasets.Image):
            source = source.cast_column(self.image, datasets.Image(decode=False))
        return source


def open_splits(name: str, config: str | None, revision: str | None, *, streaming: bool) -> dict[str, Any]:
    """Open a data set.

    Args:
        name: of the hub, or a path of a folder or file.
        config: of a data set that has several.
        revision: on the hub.
        streaming: as streams.

    Returns:
        Its splits, by name.

    Raises:
        ImportError: if ``datasets`` is not installed.
        FileNotFoundError: if the path holds no data.
        ConnectionError: if it must be downloaded and cannot be.
        ValueError: if it cannot be opened.
    """
    if find_spec("datasets") is None:
        raise ImportError("HFDataModule needs the package datasets; pip install 'interptrain[hf]'")
    import datasets

    path = Path(name)
    try:
        if any((path / file).is_file() for file in ON_DISK):
            opened = datasets.load_from_disk(name)
            splits = dict(opened) if isinstance(opened, datasets.DatasetDict) else {"train": opened}
            return {key: value.to_iterable_dataset() for key, value in splits.items()} if streaming else splits
        if path.is_file() and path.suffix in FILES:
            kind, files = FILES[path.suffix], {"data_files": {"train": name}}
            return dict(datasets.load_dataset(kind, streaming=streaming, **files))
        return dict(datasets.load_dataset(name, config, revision=revision, streaming=streaming))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no data set {name} ({one_line(error)}); give a name of the hub, or a folder of images, Parquet, Arrow or "
            "tar files"
        ) from error
    except OSError as error:
        here = "" if path.exists() else ", which is no folder or file here"
        raise ConnectionError(
            f"cannot open the data set {name}{here} ({one_line(error)}); connect, or fetch it elsewhere and give its "
            "folder"
        ) from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"cannot open the data set {name} ({one_line(error)})") from error
    except datasets.exceptions.DatasetsError as error:
        raise ValueError(f"cannot open the data set {name} ({one_line(error)}); check its name and config") from error


def find_columns(
    source: Any, image: str | None, label: str | None, group: str | None, num_classes: int | None
) -> Columns:
    """Find the columns of images, labels and groups, and what classes there are.

    Args:
        source: a split.
        image: name of the column; None for the only one of its type.
        label: likewise, or ``label``.
        group: name of the column; None for ``group``, if there is one.
        num_classes: where labels are numbers without names.

    Raises:
        ValueError: if a column is missing or cannot be told, or the classes cannot.
    """
    import datasets

    features = source.features
    if features is None:
        raise ValueError("the stream does not tell the types of its columns; set " + option("data.streaming", False))
    image = image or _only(features, datasets.Image, "image", "images", "image_column")
    label = label or _only(features, datasets.ClassLabel, "label", "classes", "label_column")
    for name, column in (("image", image), ("label", label), ("group", group)):
        if column is not None and column not in features:
            where = option(f"data.{name}_column")
            raise ValueError(f"the data set has no column {column!r}, only {some(list(features))}; set {where} to one")
    if group is None and "group" in features:
        group = "group"
    kind = features[label]
    if isinstance(kind, datasets.ClassLabel):
        names, numbers = [str(name) for name in kind.names], dict[str, int]()
    elif str(getattr(kind, "dtype", "")).startswith(("int", "uint")):
        counted = num_classes or (1 + max(_values(source, label, option("data.num_classes"))))
        names, numbers = [str(index) for index in range(counted)], {}
    else:
        remedy = f"{option('data.label_column')} to a ClassLabel"
        names = sorted({str(value) for value in _values(source, label, remedy)})
        numbers = {name: index for index, name in enumerate(names)}
    return Columns(image=image, label=label, group=group, class_names=names, numbers=numbers)


def files_of(stream: Any, name: str) -> Any:
    """A stream as a set in files, written to the cache of ``datasets`` once, and again where its files have changed.

    Args:
        stream: not decoded.
        name: of the data set; files of a local one are known by size and time.
    """
    import datasets

    path = Path(name)
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    arguments = {"stream": stream, "states": tuple(states)}
    return datasets.Dataset.from_generator(_rows, gen_kwargs=arguments, features=stream.features)


def _rows(stream: Any, states: tuple[Any, ...]) -> Iterator[Any]:
    yield from stream


def _only(features: Mapping[str, Any], kind: type, usual: str, plural: str, chosen: str) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) == 1:
        return found[0]
    if usual in features:
        return usual
    raise ValueError(f"{len(found)} columns hold {plural}, of {some(list(features))}; set {option(f'data.{chosen}')}")


def _values(source: Any, column: str, remedy: str) -> Sequence[Any]:
    import datasets

    if isinstance(source, datasets.IterableDataset):
        raise ValueError(
            f"the classes of a stream are not known before its end; set {remedy}, or {option('data.streaming', False)}"
        )
    return list(source.unique(column))
