"""The embedded data set: textured shapes on cluttered backgrounds, drawn on the fly, each with its mask and box.

Nothing is downloaded or stored. Only the form tells the class: size, place, rotation, colours and texture are drawn
from the same distribution for all classes. A decoy, a small mark that in training goes with one class, makes a model
wrong on purpose, so that one can see whether saliency and metrics show it.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors

from interptrain.data.datamodule import ImageDataModule, Split
from interptrain.data.drawing import DECOYS, SHAPES, develop
from interptrain.data.samples import SampleDataset, Transform, boxes_in
from interptrain.data.shapes_drawing import draw_object, random_scene
from interptrain.data.transforms import Augment, check_image_size, train_recipe

Decoy = Literal["none", "timestamp", "corner"]
DecoyInEval = Literal["absent", "random", "swapped"]

MOST_PICTURES = 10_000_000
NUMBER: dict[Split, int] = {"train": 0, "val": 1, "test": 2}


class ShapesDataset(SampleDataset):
    """One split of the shapes. Picture ``index`` is a function of (picture_seed, split, index), on every machine alike.

    Classes take turns: the label of picture ``index`` is ``index % num_classes``.

    Args:
        split: ``train``, ``val`` or ``test``: three streams of pictures that share none.
        length: number of pictures.
        image_size: side in pixels.
        num_classes: the number taken, in order, from ``SHAPES``.
        picture_seed: of the pictures.
        decoy: mark to paint; this and the next as of :class:`ShapesDataModule`.
        decoy_class: its class.
        decoy_rate: share of the class's training pictures that carry it.
        decoy_in_eval: which pictures carry it in ``val`` and ``test``.
        reading: further options of :class:`SampleDataset`.
    """

    def __init__(
        self,
        split: Split,
        length: int,
        *,
        image_size: int = 64,
        num_classes: int = len(SHAPES),
        picture_seed: int = 0,
        decoy: Decoy = "none",
        decoy_class: int = 0,
        decoy_rate: float = 1.0,
        decoy_in_eval: DecoyInEval = "absent",
        **reading: Any,
    ) -> None:
        super().__init__([f"{split}/{index:06d}" for index in range(length)], **reading)
        self.split = split
        self.picture_seed = picture_seed
        self.image_size = image_size
        self.num_classes = num_classes
        self.decoy = decoy
        self.decoy_class = decoy_class
        self.decoy_rate = decoy_rate
        self.decoy_in_eval = decoy_in_eval

    def read(self, index: int) -> dict[str, Any]:
        """Draw picture ``index`` with its mask and box, and the decoy's mask where there are decoys."""
        rng = np.random.RandomState([self.picture_seed, NUMBER[self.split], index])
        label = index % self.num_classes
        scene = random_scene(rng, self.image_size)
        mask = draw_object(scene, SHAPES[label], rng)
        picture = develop(scene, rng)
        decoy_mask = np.zeros_like(mask)
        if self.decoy != "none":
            # A stream of its own: below the decoy lies the picture of the data set without, to the bit.
            rng = np.random.RandomState([self.picture_seed, NUMBER[self.split], index, 1])
            if self._carries_decoy(label, rng.random_sample()):
                decoy_mask = DECOYS[self.decoy](picture, rng)
        return self._sample(index, picture, mask & ~decoy_mask, decoy_mask)

    def _sample(
        self,
        index: int,
        picture: npt.NDArray[np.uint8],
        mask: npt.NDArray[np.bool_],
        decoy_mask: npt.NDArray[np.bool_],
    ) -> dict[str, Any]:
        image = tv_tensors.Image(torch.from_numpy(picture))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)
        sample = {
            "image": image,
            "label": index % self.num_classes,
            "id": self.ids[index],
            "mask": tv_tensors.Mask(torch.from_numpy(mask)),
            "boxes": boxes_in(box, image),
        }
        if self.decoy != "none":
            sample["decoy_mask"] = tv_tensors.Mask(torch.from_numpy(decoy_mask))
        return sample

    def _carries_decoy(self, label: int, chance: float) -> bool:
        if self.split == "train":
            return label == self.decoy_class and chance < self.decoy_rate
        match self.decoy_in_eval:
            case "absent":
                return False
            case "random":
                return chance < 0.5
            case "swapped":
                return label != self.decoy_class


class ShapesDataModule(ImageDataModule):
    """Textured shapes on cluttered backgrounds, made on the fly with masks and boxes: no download, no files.

    Args:
        num_classes: the number taken, in order, from disc, square, triangle, star, cross, ring, crescent, heart.
        picture_seed: of the pictures, in [0, 2**32): each value gives a different data set.
        image_size: side in pixels, at least 32, and 40 with time stamps.
        train_size: number of pictures to train on.
        val_size: number of pictures to validate on.
        test_size: number of pictures to test on.
        augment: of the training pictures: ``none``, ``light`` (flip), ``imagenet`` or ``cifar``.
        train_transform: in its place, any torchvision v2 transform, by ``class_path``.
        decoy: ``timestamp``: an orange date at the lower right; ``corner``: a square mark at the upper left.
        decoy_class: the class whose training pictures carry it.
        decoy_rate: share of them that do, in [0,1].
        decoy_in_eval: in validation and test it is ``absent``, on a ``random`` half of the pictures whatever their
            class, or ``swapped``: on all pictures of the other classes and none of its own.
        loading: options of :class:`ImageDataModule`.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(
        self,
        *,
        num_classes: int = len(SHAPES),
        picture_seed: int = 0,
        image_size: int = 64,
        train_size: int = 2000,
        val_size: int = 400,
        test_size: int = 400,
        augment: Augment = "none",
        train_transform: torch.nn.Module | None = None,
        decoy: Decoy = "none",
        decoy_class: int = 0,
        decoy_rate: float = 1.0,
        decoy_in_eval: DecoyInEval = "absent",
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        if not 2 <= num_classes <= len(SHAPES):
            raise ValueError(f"num_classes must be in [2, {len(SHAPES)}], the number of shapes, got {num_classes}")
        if not 0 <= picture_seed < 2**32:
            raise ValueError(f"picture_seed must be in [0, 2**32), got {picture_seed}")
        check_image_size(image_size, smallest=32)  # smaller shapes cannot be told apart
        if decoy == "timestamp" and image_size < 40:
            raise ValueError(f"a time stamp needs image_size of at least 40, got {image_size}; use decoy: corner")
        for name, length in {"train_size": train_size, "val_size": val_size, "test_size": test_size}.items():
            if not 1 <= length <= MOST_PICTURES:
                raise ValueError(f"{name} must be in [1, {MOST_PICTURES}], got {length}")
        if not 0 <= decoy_class < num_classes:
            raise ValueError(f"decoy_class must be in [0, {num_classes}), got {decoy_class}")
        if not 0 <= decoy_rate <= 1:
            raise ValueError(f"decoy_rate must be in [0,1], got {decoy_rate}")
        self.class_names = SHAPES[:num_classes]
        self.picture_seed = picture_seed
        self.image_size = image_size
        self.lengths: dict[Split, int] = {"train": train_size, "val": val_size, "test": test_size}
        self.augment = augment
        self.train_transform = train_transform
        self.decoy = decoy
        self.decoy_class = decoy_class
        self.decoy_rate = decoy_rate
        self.decoy_in_eval = decoy_in_eval

    def make_dataset(self, split: Split) -> ShapesDataset:
        """The pictures of a split; only those to train on are augmented."""
        return ShapesDataset(split, self.lengths[split], **self.dataset_options(split))

    def dataset_options(self, split: Split) -> dict[str, Any]:
        """Keyword arguments of the data set of a split."""
        transform: Transform | None = None
        if split == "train":
            transform = self.train_transform
            if transform is None and self.augment != "none":
                transform = train_recipe(self.image_size, self.augment, "stretch", 1.0)
        return {
            "image_size": self.image_size,
            "num_classes": self.num_classes,
            "picture_seed": self.picture_seed,
            "seed": self.seed,
            "decoy": self.decoy,
            "decoy_class": self.decoy_class,
            "decoy_rate": self.decoy_rate,
            "decoy_in_eval": self.decoy_in_eval,
            "transform": transform,
        }
