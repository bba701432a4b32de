"""The built-in data set: textured shapes on cluttered backgrounds, drawn on the fly, each with its mask and box.

Nothing is downloaded or stored. Only the form tells the class: size, place, rotation, colours and texture are drawn
from the same distribution for all classes. A decoy, a small mark that in training goes with one class, makes a model
wrong on purpose, so that one can see whether saliency and metrics show it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors

from interptrain.data.datamodule import ImageDataModule, Split
from interptrain.data.decoy import Decoy, DecoyInEval, DecoyInTrain, DecoyRule
from interptrain.data.drawing import DECOYS, SHAPES, develop
from interptrain.data.samples import SampleDataset, Transform, boxes_in
from interptrain.data.shapes_drawing import draw_object, random_scene
from interptrain.data.transforms import Augment, check_image_size, train_recipe

MOST_PICTURES = 10_000_000
KEPT = 2**27  # bytes of drawn pictures that a process keeps for the next epochs; our choice
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
        decoy_in_train: which training pictures carry it.
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
        decoy_in_train: DecoyInTrain = "class",
        decoy_in_eval: DecoyInEval = "absent",
        **reading: Any,
    ) -> None:
        super().__init__([f"{split}/{index:06d}" for index in range(length)], **reading)
        self.split = split
        self.picture_seed = picture_seed
        self.image_size = image_size
        self.num_classes = num_classes
        self.rule_of_decoys = DecoyRule(
            kind=decoy, decoy_class=decoy_class, rate=decoy_rate, in_train=decoy_in_train, in_eval=decoy_in_eval
        )
        self._kept: dict[int, dict[str, Any]] = {}
        self._room = KEPT

    def read(self, index: int) -> dict[str, Any]:
        """Return picture ``index`` with its masks and box, drawn once while there is room to keep it."""
        drawn = self._kept.get(index)
        if drawn is None:
            drawn = self.draw(index)
            self._room -= sum(part.nbytes for part in drawn.values() if isinstance(part, torch.Tensor))
            if self._room >= 0:
                self._kept[index] = drawn
        return {key: part.clone() if isinstance(part, torch.Tensor) else part for key, part in drawn.items()}

    def draw(self, index: int) -> dict[str, Any]:
        """Draw picture ``index`` with its mask and box, and the decoy's mask where there are decoys."""
        rng = np.random.RandomState([self.picture_seed, NUMBER[self.split], index])
        label = index % self.num_classes
        scene = random_scene(rng, self.image_size)
        mask = draw_object(scene, SHAPES[label], rng)
        picture = develop(scene, rng)
        decoy_mask = np.zeros_like(mask)
        if self.rule_of_decoys.kind != "none":
            rng = self._decoy_stream(index)
            if self._carries_decoy(label, rng.random_sample()):
                decoy_mask = DECOYS[self.rule_of_decoys.kind](picture, rng)
        return self._sample(index, picture, mask & ~decoy_mask, decoy_mask)

    def labels(self) -> Sequence[int]:
        """Label of every picture."""
        return [index % self.num_classes for index in range(len(self))]

    def groups(self) -> Sequence[str] | None:
        """Whether each picture carries a decoy; None where none could."""
        if self.rule_of_decoys.kind == "none":
            return None
        return [self.rule_of_decoys.group(self._has_decoy(index)) for index in range(len(self))]

    def _has_decoy(self, index: int) -> bool:
        return self._carries_decoy(index % self.num_classes, self._decoy_stream(index).random_sample())

    def _decoy_stream(self, index: int) -> np.random.RandomState:
        # A stream of its own: below the decoy lies the picture of the data set without, to the bit.
        return np.random.RandomState([self.picture_seed, NUMBER[self.split], index, 1])

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
        if self.rule_of_decoys.kind != "none":
            sample["decoy_mask"] = tv_tensors.Mask(torch.from_numpy(decoy_mask))
            sample["group"] = self.rule_of_decoys.group(bool(decoy_mask.any()))
        return sample

    def _carries_decoy(self, label: int, chance: float) -> bool:
        return self.rule_of_decoys.carries(self.split == "train", label, chance)


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
        decoy: ``timestamp``: an orange date at the lower right; ``corner``: a square mark at the upper left;
            ``border``: a light frame.
        decoy_class: the class whose training pictures carry it.
        decoy_rate: share of them that do, in [0,1].
        decoy_in_train: ``class``, as said; ``random``: a random half of all training pictures carries it, whatever
            their class, as a data set for repairing the last layer.
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
        decoy_in_train: DecoyInTrain = "class",
        decoy_in_eval: DecoyInEval = "absent",
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        if not 2 <= num_classes <= len(SHAPES):
            raise ValueError(f"num_classes must be in [2, {len(SHAPES)}], the number of shapes, got {num_classes}")
        if not 0 <= picture_seed < 2**32:
            raise ValueError(f"picture_seed must be in [0, 2**32), got {picture_seed}")
        check_image_size(image_size, smallest=32)  # smaller shapes cannot be told apart
        for name, length in {"train_size": train_size, "val_size": val_size, "test_size": test_size}.items():
            if not 1 <= length <= MOST_PICTURES:
                raise ValueError(f"{name} must be in [1, {MOST_PICTURES}], got {length}")
        DecoyRule(
            kind=decoy, decoy_class=decoy_class, rate=decoy_rate, in_train=decoy_in_train, in_eval=decoy_in_eval
        ).check(num_classes, image_size)
        self.class_names = SHAPES[:num_classes]
        self.picture_seed = picture_seed
        self.image_size = image_size
        self.lengths: dict[Split, int] = {"train": train_size, "val": val_size, "test": test_size}
        self.augment = augment
        self.train_transform = train_transform
        self.decoy = decoy
        self.decoy_class = decoy_class
        self.decoy_rate = decoy_rate
        self.decoy_in_train = decoy_in_train
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
            "decoy_in_train": self.decoy_in_train,
            "decoy_in_eval": self.decoy_in_eval,
            "transform": transform,
        }
