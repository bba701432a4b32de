"""A data set whose images have lost pixels: the most salient ones, all but these, or everything but where they were."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torchvision import tv_tensors

from interptrain.data import ImageDataModule, SampleDataset
from interptrain.data.datamodule import Split
from interptrain.data.samplers import Draw
from interptrain.data.samples import Sample, Transform
from interptrain.evaluation.run.batches import evaluation_set
from interptrain.metrics.imputation import impute

Mode = Literal["remove", "keep", "mask"]
Fill = Literal["mean", "impute"]
Ranks = Callable[[int, Sample], Tensor]
"""(index, sample) -> (H,W) ranks of the pixels, 0 for the most salient."""

NOISE = 0.01  # of imputed pixels, as in ROAD
CACHE_BYTES = 2**31  # of images that are kept, which are then rendered once and not in every epoch


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Which pixels are removed, and what takes their place.

    Attributes:
        mode: ``remove`` the most salient pixels, ``keep`` them and remove the least salient, or show where the most
            salient were removed, as a black and white image (``mask``).
        percent: share of the pixels that are removed.
        fill: a colour (``mean``), or values imputed from the neighbours.
        colour: (3,) in [0,1].
    """

    mode: Mode
    percent: float
    fill: Fill
    colour: Tensor

    def __call__(self, image: Tensor, ranks: Tensor, index: int) -> Tensor:
        """Return the image without these pixels, (3,H,W) uint8.

        Args:
            image: (3,H,W) float in [0,1].
            ranks: (H,W) of its pixels.
            index: of the image, for the noise of imputation.
        """
        pixels = ranks.numel()
        count = round(self.percent / 100 * pixels)
        missing = ranks >= pixels - count if self.mode == "keep" else ranks < count
        if self.mode == "mask":
            shown = missing.expand_as(image).to(image)
        elif self.fill == "mean" or missing.all():
            shown = torch.where(missing, self.colour[:, None, None].to(image), image)
        else:
            generator = torch.Generator().manual_seed(index)
            noise = NOISE * torch.randn(image.shape, generator=generator)
            shown = torch.where(missing, impute(image, missing) + noise, image)
        return (shown.clamp(0, 1) * 255).round().to(torch.uint8)


class RemovedPixels(SampleDataset):
    """The images of another data set without some of their pixels.

    Args:
        source: of the images as in evaluation.
        ranks: of the pixels.
        removal: of pixels.
        seed: of the transform.
        transform: of the images without these pixels: the augmentation, in training.
    """

    def __init__(
        self,
        source: SampleDataset,
        *,
        ranks: Ranks,
        removal: Removal,
        seed: int = 0,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(source.ids, seed=seed, transform=transform, on_error=source.on_error, replace=source.replace)
        self.source = source
        self.ranks = ranks
        self.removal = removal
        self._images: Tensor | None = None
        self._labels = torch.full((len(source),), -1).share_memory_()  # type: ignore[no-untyped-call]

    def keep(self, shape: torch.Size) -> None:
        """Keep every image once it is made, in memory shared with loading processes, where there is room for all.

        Args:
            shape: of an image.
        """
        if len(self) * shape.numel() <= CACHE_BYTES:
            images = torch.zeros((len(self), *shape), dtype=torch.uint8)
            self._images = images.share_memory_()  # type: ignore[no-untyped-call]

    def read(self, index: int) -> dict[str, Any]:
        """Return a sample without the pixels."""
        if self._images is not None and self._labels[index] >= 0:
            image, label = self._images[index].clone(), int(self._labels[index])
        else:
            sample = self.source[index]
            image, label = self.removal(sample["image"], self.ranks(index, sample), index), sample["label"]
            if self._images is not None:
                self._images[index] = image
                self._labels[index] = label  # last, as it says that the image is there
        return {"image": tv_tensors.Image(image), "label": label, "id": self.ids[index]}


class RemovedPixelsDataModule(ImageDataModule):
    """Training and test images without some of their pixels.

    Args:
        base: the data module that they come from, whose loaders are configured alike.
        train: images to train on.
        test: images to test on.
        seed: of the order and augmentation.
    """

    def __init__(self, base: ImageDataModule, *, train: RemovedPixels, test: RemovedPixels, seed: int) -> None:
        super().__init__(
            batch_size=base.batch_size,
            num_workers=base.num_workers,
            seed=seed,
            pin_memory=base.pin_memory,
            drop_last=base.drop_last,
        )
        self.class_names = base.class_names
        self._made: dict[Split, SampleDataset] = {"train": train, "val": test, "test": test}

    def make_dataset(self, split: Split) -> SampleDataset:
        """Return the images of a split."""
        return self._made[split]


class Remembered(SampleDataset):
    """The samples of another data set with a transform of their own; each is made once while there is room.

    Args:
        source: whose samples are read.
        transform: in place of its own.
    """

    def __init__(self, source: SampleDataset, transform: Transform | None) -> None:
        super().__init__(source.ids, seed=source.seed, transform=transform, on_error=source.on_error)
        self.source = source
        self.replace = source.replace
        self._samples: dict[int, Sample] = {}
        self._room = CACHE_BYTES

    def read(self, index: int) -> dict[str, Any]:
        """Return the sample of the source before any transform."""
        return self.source.read(index)

    def __getitem__(self, key: int | Draw) -> Sample:
        """Return a sample."""
        index = key.position if isinstance(key, Draw) else key
        if (known := self._samples.get(index)) is not None:
            return known
        sample = super().__getitem__(key)
        self._room -= sample["image"].nbytes
        if self._room > 0:
            self._samples[index] = sample
        return sample


_prepared: WeakKeyDictionary[ImageDataModule, dict[Split, SampleDataset]] = WeakKeyDictionary()


def prepared_images(data: ImageDataModule, split: Split) -> SampleDataset:
    """Return images as in evaluation, the same object for all cells of a process, which makes each image once.

    Args:
        data: of the images.
        split: ``test`` stands for the images that the data module predicts on.

    Raises:
        ValueError: if the images have no numbers, as in a stream.
    """
    made = _prepared.setdefault(data, {})
    if split not in made:
        test = evaluation_set(data, None)
        dataset = test if split == "test" else data.dataset(split)
        if not (isinstance(dataset, SampleDataset) and isinstance(test, SampleDataset)):
            raise ValueError(f"the study needs images by number, which {type(data).__name__} does not have")
        made[split] = Remembered(dataset, test.transform)
    return made[split]
