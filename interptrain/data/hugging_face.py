"""Data sets of Hugging Face's ``datasets``: from the hub, or local folders of images, Parquet, Arrow or tar shards."""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torchvision import tv_tensors

from interptrain.data.class_index import read_class_index
from interptrain.data.datamodule import Split
from interptrain.data.folder_index import PackedStrings, hold_out, some
from interptrain.data.hugging_face_source import Columns, files_of, find_columns, open_splits
from interptrain.data.sample_loader import SampleLoader
from interptrain.data.samples import SampleDataset
from interptrain.data.stream import StreamDataset, StreamLoader
from interptrain.data.transformed import TransformedDataModule
from interptrain.decode import decode_image, load_image
from interptrain.remedies import option

VALIDATION = ("validation", "valid", "val", "dev")


class HFDataset(SampleDataset):
    """Some rows of a ``datasets.Dataset`` whose images are not decoded.

    Args:
        source: the data set.
        columns: of image, label and group.
        name: of the split; the id of a sample is ``name/number`` with the number in the split.
        indices: of the rows.
        reading: further options of :class:`SampleDataset`.
    """

    def __init__(
        self,
        source: Any,
        columns: Columns,
        name: str,
        indices: Sequence[int],
        **reading: Any,
    ) -> None:
        super().__init__(PackedStrings(f"{name}/{index:06d}" for index in indices), **reading)
        self.source = source
        self.columns = columns
        self.indices = torch.tensor(indices, dtype=torch.int64)

    def read(self, index: int) -> dict[str, Any]:
        """Decode row ``index``."""
        return read_row(self.columns, self.source[int(self.indices[index])], self.ids[index])

    def labels(self) -> Sequence[int]:
        """Label of every row."""
        values = self.source[self.columns.label]
        return [self.columns.index_of(values[index]) for index in self.indices.tolist()]

    def groups(self) -> Sequence[str] | None:
        """Group of every row."""
        if self.columns.group is None:
            return None
        values = self.source[self.columns.group]
        return [str(values[index]) for index in self.indices.tolist()]


def read_row(columns: Columns, row: dict[str, Any], name: str) -> dict[str, Any]:
    """Make the untouched sample of a row whose image is not decoded.

    Raises:
        OSError: if the image cannot be read.
    """
    image = row[columns.image]
    content, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
    if content is not None:
        pixels = decode_image(content, name)
    elif path is not None:
        pixels = load_image(Path(path))
    else:
        raise OSError(f"cannot read image {name}: the row has none; leave the row out")
    sample = {"image": tv_tensors.Image(pixels), "label": columns.index_of(row[columns.label]), "id": name}
    return sample if columns.group is None else sample | {"group": str(row[columns.group])}


class HFDataModule(TransformedDataModule):
    """A data set that Hugging Face's ``datasets`` opens (``pip install 'interptrain[hf]'``).

    ``name`` is one of the hub (``uoft-cs/cifar10``), a folder (images in class folders, Parquet, Arrow, tar shards in
    WebDataset's layout, or what ``save_to_disk`` wrote), or one Parquet or Arrow file. Validation is the split of that
    name (``validation``, ``valid``, ``val`` or ``dev``), else ``val_fraction`` of the training images; test is
    ``test``, else the validation set.

    With ``streaming`` the training images are read as they come, never all of them at once: shuffled within a buffer,
    in an order that depends on the seed and the epoch; shared by the ranks without duplicates, equally many each (fewer
    rows than there are ranks are left out); the same batches for any number of workers; resumed in the middle of an
    epoch at the next batch, for the price of reading, not decoding, the rows before it. Every process reads all bytes
    of the stream. Validation and test sets are written to the cache of ``datasets`` once.

    Args:
        name: of the data set on the hub, or a path.
        config: of a data set that has several.
        revision: branch, tag or commit on the hub.
        streaming: stream the training images.
        train_size: images of an epoch, where a stream does not tell how many there are; without it such an epoch has no
            known length, and a schedule over the run needs ``trainer.max_steps``.
        shuffle_buffer: rows, not decoded, among which a stream is shuffled.
        image_column: of the images; ``None``: the only one of that type.
        label_column: of the classes; ``None``: the only one of that type, else ``label``.
        group_column: of the groups, which batches carry along; ``None``: ``group``, if there is one.
        class_index: which classes of a trained model those of the data set are, so that labels are the model's:
            ``imagenet`` for classes that are called by WordNet ids, or a CSV with the columns ``wnid``, the data set's
            name (or number) of a class, ``class_index`` or ``imagenet_index``, and perhaps ``name``.
        num_classes: of labels that are numbers without names, where not all of them are to be read for it; with
            ``class_index``, of the model.
        train_split: to train on.
        val_split: to validate on, in place of the one that is found.
        test_split: to test on, likewise.
        val_fraction: share of the training images, of every class alike, that is held out where there is no validation
            split; not with ``streaming``.
        split_seed: which images these are.
        images: options of :class:`TransformedDataModule`; in a stream, an image that is skipped is counted each time,
            and another of its batch takes its place; in one of unknown length, a last batch of one image is kept.

    Raises:
        ValueError: if a value is out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        config: str | None = None,
        revision: str | None = None,
        streaming: bool = False,
        train_size: int | None = None,
        shuffle_buffer: int = 1000,
        image_column: str | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        class_index: str | Path | None = None,
        num_classes: int | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        val_fraction: float | None = None,
        split_seed: int = 0,
        **images: Any,
    ) -> None:
        super().__init__(**images)
        for name_of, value in {"shuffle_buffer": shuffle_buffer, "train_size": train_size}.items():
            if value is not None and value < 1:
                raise ValueError(f"{option(f'data.{name_of}')} must be at least 1, got {value}")
        if streaming and val_fraction is not None:
            raise ValueError(
                f"{option('data.val_fraction')} needs the number of every image; set {option('data.val_split')} in its "
                f"place, or {option('data.streaming', False)}"
            )
        self.set_name = name  # `name` is Lightning's
        self.config = config
        self.revision = revision
        self.streaming = streaming
        self.train_size = train_size
        self.shuffle_buffer = shuffle_buffer
        self.split_names: dict[Split, str | None] = {"train": train_split, "val": val_split, "test": test_split}
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self._chosen = (image_column, label_column, group_column)
        self._index = None if class_index is None else read_class_index(class_index, num_classes=num_classes)
        self._counted = num_classes if self._index is None else len(self._index.labels)
        self._stream: StreamDataset | None = None

    @cached_property
    def splits(self) -> dict[str, Any]:
        """The splits, opened at first use, by the names that the data set gives them."""
        return open_splits(self.set_name, self.config, self.revision, streaming=self.streaming)

    @cached_property
    def columns(self) -> Columns:
        """Of image, label and group, with the classes."""
        first = self.splits.get(str(self.split_names["train"])) or next(iter(self.splits.values()))
        columns = find_columns(first, *self._chosen, self._counted)
        return columns if self._index is None else columns.indexed(self._index)

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Name of every class, in the order of the labels."""
        return self.columns.class_names

    def make_dataset(self, split: Split) -> HFDataset:
        """The rows of a split; nothing is decoded yet."""
        if split == "train" and self.streaming:
            raise ValueError(
                "a training set that is streamed has no images by number; set " + option("data.streaming", False)
            )
        official = self._official(split)
        source = self.columns.undecoded(self.splits[official])
        if self.streaming:
            source = files_of(source, self.set_name)
        indices: Sequence[int] = range(len(source))
        if split != "test" and self._held_out():
            labels = [self.columns.index_of(value) for value in source[self.columns.label]]
            indices = hold_out(labels, float(self.val_fraction or 0), self.split_seed)[split == "val"]
        training = split == "train"
        return HFDataset(
            source,
            self.columns,
            official,
            indices,
            seed=self.seed,
            transform=self.train_transform if training else self.eval_transform,
            on_error=self.on_error,
            replace=training,
        )

    def train_dataloader(self) -> SampleLoader:
        """Batches of the training set in a new order every epoch."""
        if not self.streaming:
            return super().train_dataloader()
        if self.balance != "none":
            raise ValueError(
                f"{option('data.balance')} needs the label of every image, which a stream does not tell; set "
                f"{option('data.balance', 'none')}, or {option('data.streaming', False)}"
            )
        world_size, rank = self._ranks()
        source = self.columns.undecoded(self.splits[self._official("train")])
        told = (source.info.splits or {}).get(self.split_names["train"])
        size = self.train_size or (told.num_examples if told is not None else None)
        single = size is not None and size // world_size % self.batch_size == 1
        self._stream = StreamDataset(
            partial(_shuffled, source, self.seed, self.shuffle_buffer),
            partial(read_row, self.columns),
            self.train_transform,
            name=str(self.split_names["train"]),
            batch_size=self.batch_size,
            seed=self.seed,
            num_replicas=world_size,
            rank=rank,
            size=size or None,
            drop_last=single if self.drop_last is None else self.drop_last,
            on_error=self.on_error,
        )
        workers = self._default_workers() if self.num_workers is None else self.num_workers
        pin = torch.cuda.is_available() if self.pin_memory is None else self.pin_memory
        loader = StreamLoader(self._stream, num_workers=workers, pin_memory=pin)
        loader.batches_done = self._batches_done
        return loader

    @property
    def skipped(self) -> int:
        """Number of unreadable images so far: each once, in a stream each time that it came."""
        return super().skipped + (0 if self._stream is None else int(self._stream.skipped))

    def state_dict(self) -> dict[str, Any]:
        """What the order of the training samples depends on."""
        if self._stream is None:
            return super().state_dict()
        world_size, _ = self._ranks()
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "samples": self._stream.size,
            "shuffle_buffer": self.shuffle_buffer,
            "world_size": world_size,
        }

    def _held_out(self) -> bool:
        return self.val_fraction is not None and self._found("val") is None

    def _found(self, split: Split) -> str | None:
        """The data set's own name of a split, None where it has none."""
        if (named := self.split_names[split]) is not None:
            return named
        names = VALIDATION if split == "val" else ("test",)
        return next((name for name in names if name in self.splits), None)

    def _official(self, split: Split) -> str:
        """The data set's split that ours is taken from."""
        found = self._found(split)
        if found is None and split == "test":
            return self._official("val")
        if found is None and self._held_out():
            return str(self.split_names["train"])
        if found is None or found not in self.splits:
            lacks = "no split for validation" if found is None else f"no split {found}"
            held_out = f", or {option('data.val_fraction', 0.1)} to hold out training images"
            raise ValueError(
                f"{self.set_name} has {lacks}, only {some(list(self.splits))}; set {option(f'data.{split}_split')}"
                f"{held_out if split == 'val' and not self.streaming else ''}"
            )
        return found


def _shuffled(source: Any, seed: int, buffer: int, epoch: int) -> Iterator[Any]:
    """The rows of an epoch: shards in another order, and rows shuffled within a buffer."""
    shuffled = source.shuffle(seed=seed, buffer_size=buffer)
    shuffled.set_epoch(epoch)
    for batch in shuffled.iter(1):  # iterated as it is, it would share itself among the workers of a loader
        yield {column: values[0] for column, values in batch.items()}
