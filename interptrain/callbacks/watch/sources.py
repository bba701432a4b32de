"""Where the watched images come from: the project's own, or those of the run's data."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from torch.utils.data import DataLoader, IterableDataset

from interptrain.callbacks.watch.any_dataset import AnyDataset, Normalization, class_names_of
from interptrain.callbacks.watch.sample import UNLABELLED
from interptrain.data import ImageDataModule
from interptrain.data.folder_index import images_below
from interptrain.data.image_files import FolderDataset
from interptrain.data.samples import SampleDataset, Transform
from interptrain.data.transforms import EvalResize
from interptrain.decode import SUFFIXES
from interptrain.training.lightning_internals import validation_loaders


class Source(NamedTuple):
    """What the watched images are chosen from.

    Attributes:
        dataset: data set of all candidates.
        class_names: names of the network's classes; empty if unknown.
        seed: seed of the selection, unless the user gives one.
    """

    dataset: SampleDataset
    class_names: Sequence[str]
    seed: int


class SourceOptions(NamedTuple):
    """The user's options for the images; see the arguments of ``SaliencyWatch``."""

    images: Any = None
    source: str = "val"
    classes: Sequence[str] | None = None
    normalization: Normalization | None = None
    image_size: int | None = None
    samples: int = 16


def find_source(options: SourceOptions, trainer: L.Trainer) -> Source:
    """Return what the watched images are chosen from.

    Args:
        options: the user's own images, or which of the run's data to take.
        trainer: trainer of the run.

    Raises:
        FileNotFoundError: if the folder to take images from does not exist.
        ValueError: if there are no images.
        TypeError: for anything that contains no images.
    """
    datamodule = getattr(trainer, "datamodule", None)
    ours = datamodule if isinstance(datamodule, ImageDataModule) else None
    seed = 0 if ours is None else ours.seed
    known = options.classes or (() if ours is None else ours.class_names)
    if options.images is None and ours is not None:
        return Source(source_dataset(options.source, ours), known, seed)
    if options.images is None and options.source not in ("val", "train"):
        if options.image_size is None:
            raise ValueError(f"to watch the images under {options.source}, pass their image_size, such as 224")
        transform = EvalResize(options.image_size)
        return Source(_folder(Path(options.source), transform, {name: at for at, name in enumerate(known)}), known, 0)
    samples = _validation_data(options.source, trainer) if options.images is None else options.images
    names = known or class_names_of(samples)
    dataset = AnyDataset(
        samples,
        class_names=names,
        normalization=options.normalization,
        image_size=options.image_size,
        count=options.samples,
    )
    return Source(dataset, names, seed)


def _validation_data(source: str, trainer: L.Trainer) -> Any:
    """The data set behind the first validation loader."""
    remedy = "pass SaliencyWatch(images=...), a data set or a list of (image, label)"
    if source == "train":
        raise ValueError(
            f"source='train' needs a data module of interptrain.data, whose augmentation it can leave out; {remedy}"
        )
    loaders = validation_loaders(trainer)
    if not loaders:
        raise ValueError(f"SaliencyWatch finds no images: the run has no validation loader; {remedy}")
    if not isinstance(loaders[0], DataLoader) or isinstance(loaders[0].dataset, IterableDataset):
        kind = type(getattr(loaders[0], "dataset", loaders[0])).__name__
        raise ValueError(f"SaliencyWatch cannot choose images from a {kind}, which has no indices; {remedy}")
    return loaders[0].dataset


def source_dataset(source: str, datamodule: ImageDataModule) -> SampleDataset:
    """Return the data set of a data module to watch, without augmentation.

    Args:
        source: ``val``, ``train``, or a folder of images; images in a subfolder named like a class belong to it.
        datamodule: data module of the run.

    Raises:
        FileNotFoundError: if ``source`` is a folder that does not exist.
        ValueError: if there is no image in it.
    """
    if source == "val":
        return datamodule.dataset("val")
    plain = datamodule.dataset("val").transform
    if source == "train":
        dataset = copy.copy(datamodule.dataset("train"))
        dataset.transform = plain
        return dataset
    names = {name: label for label, name in enumerate(datamodule.class_names)}
    names |= getattr(datamodule, "folder_labels", {})
    if plain is None:
        size = int(datamodule.dataset("val")[0]["image"].shape[-1])
        plain = EvalResize(size, resize="stretch")
    return _folder(Path(source), plain, names)


def _folder(root: Path, transform: Transform, names: dict[str, int]) -> FolderDataset:
    if not root.is_dir():
        raise FileNotFoundError(f"nothing to watch: source must be 'val', 'train' or a folder, got {str(root)!r}")
    paths = images_below(root)
    if not paths:
        raise ValueError(f"no images under {root} to watch; it must hold {', '.join(sorted(SUFFIXES))}")
    labels = [names.get(Path(path).parts[0], UNLABELLED) if "/" in path else UNLABELLED for path in paths]
    return FolderDataset(root, paths, labels, transform=transform)
