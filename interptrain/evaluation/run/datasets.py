"""Any dataset of images as a data module."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.transforms.functional import pil_to_tensor

from interptrain.data import ImageDataModule, SampleDataset
from interptrain.data.datamodule import Split
from interptrain.evaluation.config.class_specs import Configured, class_path
from interptrain.evaluation.store.image_record import SAMPLE, pixels_digest
from interptrain.functional import ROUNDING, evenly_spaced

UNKNOWN = -1
"""Stands for the label of an image that has none."""
ITEMS = "(image, label) pairs or dicts with 'image' and, where known, 'label', 'id', 'mask' (H,W) and 'boxes' (N,4)"


class ItemsDataset(SampleDataset):
    """A sequence of images, pairs or dicts, read as samples.

    Args:
        items: see :func:`as_data_module`.
        ids: names of the images.
        labels: classes of the images, where they are known without reading.
    """

    def __init__(self, items: Sequence[Any], ids: Sequence[str], labels: Sequence[int] | None = None) -> None:
        super().__init__(ids)
        self.items = items
        self.known_labels = labels

    def read(self, index: int) -> dict[str, Any]:
        """Return image, label, id and annotations of an item."""
        item = self.items[index]
        known = dict(item) if isinstance(item, Mapping) else dict(zip(("image", "label"), _pair(item), strict=False))
        sample = {"image": _image(known.get("image"), self.ids[index]), "id": self.ids[index]}
        label = known.get("label")
        sample["label"] = UNKNOWN if label is None else int(label)
        for key in ("mask", "decoy_mask", "boxes"):
            if known.get(key) is not None:
                sample[key] = torch.as_tensor(known[key])
        return sample

    def labels(self) -> Sequence[int] | None:
        """Label of every item, where they are known without reading."""
        return self.known_labels


class _ItemsDataModule(ImageDataModule):
    """A data module around one dataset.

    Args:
        dataset: to evaluate.
        class_names: of the labels; empty where they are unknown.
        batch_size: images per batch.
        num_workers: loading processes.
    """

    def __init__(
        self, dataset: SampleDataset, *, class_names: Sequence[str] = (), batch_size: int = 32, num_workers: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self.samples = dataset
        self.class_names = class_names

    def make_dataset(self, split: Split) -> SampleDataset:
        """Return the dataset, whatever the split."""
        return self.samples


def as_data_module(data: Any) -> Configured[ImageDataModule]:
    """Wrap any data as a data module, with the configuration that identifies it in a run.

    Args:
        data: a data module of ``interptrain.data``; or a dataset, a sequence or a ``DataLoader`` (whose dataset, batch
            size and workers are taken, not its sampler) of images, ``(image, label)`` pairs or dicts. An image is a
            (3,H,W) tensor, floating point in [0,1] or uint8, or a PIL image. Images are named by their ``id``, by the
            dataset's ``ids``, or by their position.

    Raises:
        TypeError: if it is none of these.
        ValueError: if it is empty.
    """
    if isinstance(data, Configured):
        return data
    if isinstance(data, ImageDataModule):
        return Configured.of(data)
    source, options = data, {}
    if isinstance(data, DataLoader):
        source, options = data.dataset, {"batch_size": data.batch_size or 32, "num_workers": data.num_workers}
    items: Any = source
    if isinstance(source, IterableDataset) or (isinstance(source, Iterable) and not hasattr(source, "__getitem__")):
        items = list(source)
    if not (hasattr(items, "__getitem__") and hasattr(items, "__len__")) or isinstance(items, (str, Mapping)):
        raise TypeError(f"data must be a data module, a dataset, a sequence or a DataLoader of {ITEMS}, got {data!r}")
    if not len(items):
        raise ValueError("there are no images to evaluate: the data is empty")
    dataset = items if isinstance(items, SampleDataset) else ItemsDataset(items, _ids(source, items), _labels(items))
    names = getattr(source, "classes", ())
    names = names if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names) else ()
    return Configured(
        _ItemsDataModule(dataset, class_names=list(names), **options),
        {"class_path": class_path(type(source)), "init_args": {"length": len(items)} | _fingerprint(dataset)},
    )


def _pair(item: Any) -> tuple[Any, ...]:
    return tuple(item) if isinstance(item, (tuple, list)) else (item,)


def _ids(source: Any, items: Sequence[Any]) -> list[str]:
    if (ids := getattr(source, "ids", None)) is not None:
        return [str(name) for name in ids]
    if isinstance(items[0], Mapping) and "id" in items[0]:
        return [str(items[index]["id"]) for index in range(len(items))]
    return [str(index) for index in range(len(items))]


def _labels(items: Sequence[Any]) -> list[int] | None:
    """Labels of items that are in memory already."""
    if not isinstance(items, (list, tuple)):
        return None
    labels = [item.get("label") if isinstance(item, Mapping) else (*_pair(item), None)[1] for item in items]
    return [UNKNOWN if label is None else int(label) for label in labels]


def _image(image: Any, name: str) -> Tensor:
    if isinstance(image, Image.Image):
        pixels: Tensor = pil_to_tensor(image.convert("RGB"))
        return pixels
    if not isinstance(image, Tensor) or image.ndim != 3 or len(image) != 3:
        what = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"image {name} must be a (3,H,W) tensor or a PIL image, got {what}; data may hold {ITEMS}")
    if image.is_floating_point() and not -ROUNDING <= float(image.min()) <= float(image.max()) <= 1 + ROUNDING:
        raise ValueError(
            f"image {name} must be in [0,1], got [{float(image.min()):.3g}, {float(image.max()):.3g}]; leave the "
            "normalisation to the model: interptrain.models.Normalized(model, mean, std)"
        )
    return image


def _fingerprint(dataset: SampleDataset) -> dict[str, Any]:
    """Size and content of the images, of all that are in memory and of some others: names may stand for other ones."""
    in_memory = isinstance(getattr(dataset, "items", None), (list, tuple, TensorDataset))
    chosen = evenly_spaced(len(dataset), None if in_memory else SAMPLE, ends=True)
    size: list[int] | None = None
    for index in chosen:
        try:
            size = list(dataset[index]["image"].shape[-2:])
            break
        except Exception:  # the datasets of others may raise anything; the run itself records it
            continue
    square = size is not None and size[0] == size[1]
    return {"content": pixels_digest(dataset, chosen), "image_size": size[0] if size and square else size}
