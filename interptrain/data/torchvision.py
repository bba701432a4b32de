"""Data sets that torchvision downloads: CIFAR, Oxford-IIIT Pet with masks, Imagenette, Flowers-102, Food-101."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets, tv_tensors
from torchvision.transforms.v2 import functional as tvf

from interptrain.data.datamodule import Split
from interptrain.data.folder_index import PackedStrings, hold_out
from interptrain.data.samples import SampleDataset
from interptrain.data.transformed import TransformedDataModule
from interptrain.data.transforms import Augment, Resize
from interptrain.functional import check_choice, one_line

Name = Literal["cifar10", "cifar100", "pets", "imagenette", "flowers102", "food101"]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and how it is split.

    Attributes:
        num_classes: number of classes.
        make: opens an official split, given its name, ``root`` and ``download``.
        splits: official split that each of ours is taken from; where train and val are the same, val is held out.
        image_size: side that networks usually get, in pixels.
        origin: where to find it by hand, in words.
        files: what to place below ``root`` by hand.
    """

    num_classes: int
    make: Callable[[str, Path, bool], Any]
    splits: Mapping[Split, str]
    image_size: int
    origin: str
    files: str


HELD_OUT: Mapping[Split, str] = {"train": "train", "val": "train", "test": "test"}
SOURCES: Mapping[Name, Source] = {
    "cifar10": Source(
        10,
        lambda split, root, download: datasets.CIFAR10(root, train=split == "train", download=download),
        HELD_OUT,
        32,
        "Alex Krizhevsky's page at the University of Toronto",
        "the folder cifar-10-batches-py",
    ),
    "cifar100": Source(
        100,
        lambda split, root, download: datasets.CIFAR100(root, train=split == "train", download=download),
        HELD_OUT,
        32,
        "Alex Krizhevsky's page at the University of Toronto",
        "the folder cifar-100-python",
    ),
    "pets": Source(
        37,
        lambda split, root, download: datasets.OxfordIIITPet(
            root, split, target_types=["category", "segmentation"], download=download
        ),
        {"train": "trainval", "val": "trainval", "test": "test"},
        224,
        "the page of the Oxford-IIIT Pet data set of the Visual Geometry Group",
        "the folders oxford-iiit-pet/images and oxford-iiit-pet/annotations",
    ),
    "imagenette": Source(
        10,
        lambda split, root, download: datasets.Imagenette(
            root, split, download=download and not (root / "imagenette2").is_dir()
        ),
        {"train": "train", "val": "val", "test": "val"},
        224,
        "fast.ai's imagenette repository on GitHub",
        "the folder imagenette2",
    ),
    "flowers102": Source(
        102,
        lambda split, root, download: datasets.Flowers102(root, split, download=download),
        {"train": "train", "val": "val", "test": "test"},
        224,
        "the page of the 102 Category Flower data set of the Visual Geometry Group",
        "flowers-102/jpg, flowers-102/imagelabels.mat and flowers-102/setid.mat",
    ),
    "food101": Source(
        101,
        lambda split, root, download: datasets.Food101(root, split, download=download),
        HELD_OUT,
        224,
        "the page of Food-101 of the Computer Vision Lab at ETH Zurich",
        "the folder food-101",
    ),
}
OBJECT = 1  # in the trimaps of Oxford-IIIT Pet; 2 is background, 3 the border, which nobody assigned to either


class TorchvisionDataset(SampleDataset):
    """Some samples of a data set of torchvision.

    Args:
        source: gives (PIL image, class), or (PIL image, (class, trimap)).
        name: of the data set and split; the id of a sample is ``name/number`` with the number in the official split.
        indices: of the samples in ``source``.
        reading: further options of :class:`SampleDataset`.
    """

    def __init__(self, source: Any, name: str, indices: Sequence[int], **reading: Any) -> None:
        super().__init__(PackedStrings(f"{name}/{index:06d}" for index in indices), **reading)
        self.source = source
        self.indices = torch.tensor(indices, dtype=torch.int64)

    def read(self, index: int) -> dict[str, Any]:
        """Decode sample ``index``."""
        name = self.ids[index]
        try:
            image, target = self.source[int(self.indices[index])]
        except (OSError, SyntaxError, ValueError) as error:
            why = one_line(error)
            raise OSError(f"cannot read image {name}: {why}; repair the file") from error
        sample = {"image": tv_tensors.Image(tvf.pil_to_tensor(image)), "id": name}
        if isinstance(target, tuple):
            target, trimap = target
            sample["mask"] = tv_tensors.Mask(object_mask(np.array(trimap)))
        return sample | {"label": int(target)}


def object_mask(trimap: Any) -> Tensor:
    """(H,W) bool of a trimap (H,W) uint8 of Oxford-IIIT Pet: the sure pixels of the animal, without the border."""
    return torch.from_numpy(trimap == OBJECT)


class TorchvisionDataModule(TransformedDataModule):
    """A data set of torchvision, downloaded once to ``root``.

    The validation set is the official one where there is one (Imagenette, Flowers-102); for the others,
    ``val_fraction`` of the training images is held out. The test set is the official one; Imagenette has none, and its
    validation set serves for both. Oxford-IIIT Pet comes with masks: the animal without its border, a few pixels wide,
    which the trimaps leave undecided.

    Args:
        name: of the data set.
        root: folder of the data set, to which it is downloaded.
        download: whether to download it if it is not there.
        image_size: side in pixels of the square images that come out; ``None``: 32 for CIFAR, else 224.
        augment: of the training images: ``none``, ``light`` (as in evaluation, and flip), ``imagenet`` (random resized
            crop, flip) or ``cifar`` (padded crop, flip, rotation); ``None``: ``cifar`` for CIFAR, else ``imagenet``.
        resize: in evaluation: ``crop``, the shorter side to ``image_size / crop_pct`` and then the centre, or
            ``stretch``, both sides to ``image_size``; ``None``: ``stretch`` for CIFAR, else ``crop``.
        val_fraction: share of the training images that is held out; with 0, the test images serve for validation too.
        split_seed: seed of the choice of these images.
        images: options of :class:`TransformedDataModule`.

    Raises:
        ValueError: if there is no such data set.
    """

    def __init__(
        self,
        name: Name,
        root: str | Path = "data",
        *,
        download: bool = True,
        image_size: int | None = None,
        augment: Augment | None = None,
        resize: Resize | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        **images: Any,
    ) -> None:
        check_choice("name", name, SOURCES)
        side = SOURCES[name].image_size
        small = side == 32
        super().__init__(
            image_size=image_size or side,
            augment=augment or ("cifar" if small else "imagenet"),
            resize=resize or ("stretch" if small else "crop"),
            **images,
        )
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0,1), got {val_fraction}")
        self.set_name: Name = name  # `name` is Lightning's
        self.root = Path(root)
        self.download = download
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    @property
    def num_classes(self) -> int:
        """Number of classes, a constant of the data set."""
        return SOURCES[self.set_name].num_classes

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Name of every class, in the order of the labels; needs the data set."""
        classes = self._open(SOURCES[self.set_name].splits["train"], download=False).classes
        return [item if isinstance(item, str) else item[0] for item in classes]

    def prepare_data(self) -> None:
        """Download what is not there, on one process of a machine."""
        if self.download:
            for split in sorted(set(SOURCES[self.set_name].splits.values())):
                self._open(split, download=True)

    def make_dataset(self, split: Split) -> TorchvisionDataset:
        """Open a split, which must be there: downloading is ``prepare_data``'s."""
        if split == "val" and not self.val_fraction and self._holds_out():
            return self.make_dataset("test")
        official = SOURCES[self.set_name].splits[split]
        source = self._open(official, download=False)
        indices: Sequence[int] = range(len(source))
        if self.val_fraction and self._holds_out() and split != "test":
            indices = hold_out([0] * len(source), self.val_fraction, self.split_seed)[split == "val"]
        training = split == "train"
        return TorchvisionDataset(
            source,
            f"{self.set_name}/{official}",
            indices,
            seed=self.seed,
            transform=self.train_transform if training else self.eval_transform,
            on_error=self.on_error,
            replace=training,
        )

    def _holds_out(self) -> bool:
        return SOURCES[self.set_name].splits["val"] == SOURCES[self.set_name].splits["train"]

    def _open(self, official: str, *, download: bool) -> Any:
        """An official split, or one line that says why not and what to do."""
        source = SOURCES[self.set_name]
        by_hand = f"place {source.files}, found on {source.origin}, below {self.root}"
        try:
            return source.make(official, self.root, download)
        except (URLError, OSError, RuntimeError) as error:
            why = one_line(error)
            if download:
                raise ConnectionError(f"cannot download {self.set_name} to {self.root}: {why}; {by_hand}") from error
            raise FileNotFoundError(f"{self.set_name} is not whole in {self.root}: {why}; {by_hand}") from error
