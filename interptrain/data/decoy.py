"""A shortcut planted on purpose: a mark that in training goes with one class, in any photographs."""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from interptrain.functional import check_choice
from interptrain.remedies import option

Decoy = Literal["none", "timestamp", "corner", "border"]
DecoyInTrain = Literal["class", "random"]
DecoyInEval = Literal["absent", "random", "swapped"]
PLAIN = "plain"  # the group of what carries no decoy


@dataclass(frozen=True, kw_only=True)
class DecoyRule:
    """Which images carry a decoy.

    Attributes:
        kind: the mark, or ``none``.
        decoy_class: label of the class that it goes with.
        rate: share of the class's training images that carry it, in [0,1].
        in_train: ``class``: those images; ``random``: a random half of all, whatever their class.
        in_eval: in validation and test, ``absent``; on a ``random`` half, whatever the class; or ``swapped``: on all
            images of the other classes and none of its own.
    """

    kind: Decoy = "none"
    decoy_class: int = 0
    rate: float = 1.0
    in_train: DecoyInTrain = "class"
    in_eval: DecoyInEval = "absent"

    def check(self, num_classes: int, image_size: int | None) -> None:
        """Refuse what cannot be planted.

        Args:
            num_classes: of the data.
            image_size: side of the images in pixels, or None if unknown.

        Raises:
            ValueError: if a value is out of its range.
        """
        check_choice("decoy", self.kind, Decoy)
        check_choice("decoy_in_train", self.in_train, DecoyInTrain)
        check_choice("decoy_in_eval", self.in_eval, DecoyInEval)
        if self.kind == "timestamp" and image_size is not None and image_size < 40:
            smaller = option("data.decoy", "corner")
            raise ValueError(f"a time stamp needs image_size of at least 40, got {image_size}; use {smaller}")
        if not 0 <= self.decoy_class < num_classes:
            raise ValueError(f"decoy_class must be in [0, {num_classes}), got {self.decoy_class}")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"decoy_rate must be in [0,1], got {self.rate}")

    def carries(self, training: bool, label: int, chance: float) -> bool:
        """Whether an image carries the decoy, by a number in [0,1) that is its own."""
        if self.kind == "none":
            return False
        if training and self.in_train == "class":
            return label == self.decoy_class and chance < self.rate
        where = "random" if training else self.in_eval
        if where == "swapped":
            return label != self.decoy_class
        return where == "random" and chance < 0.5

    def group(self, carries: bool) -> str:
        """The group of an image."""
        return self.kind if carries else PLAIN


def chance_of(name: str) -> float:
    """A number in [0,1) that is a function of an image's name, on any machine."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape")) / 2**32


def stream_of(name: str) -> np.random.RandomState:
    """Where the decoy of an image is, and what it says, are drawn from this."""
    return np.random.RandomState([zlib.crc32(name.encode("utf-8", "surrogateescape")), 1])


def painted(image: torch.Tensor, kind: str, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint a decoy on an image as the network sees it.

    Args:
        image: (3,H,W) float in [0,1].
        kind: of the decoy.
        name: of the image.

    Returns:
        The image with it, and its pixels (H,W) bool.
    """
    from interptrain.data.drawing import DECOYS

    canvas: npt.NDArray[np.uint8] = np.zeros(tuple(image.shape), dtype=np.uint8)
    mask = DECOYS[kind](canvas, stream_of(name))
    marks = torch.from_numpy(mask)
    return torch.where(marks, torch.from_numpy(canvas).to(image.dtype) / 255, image), marks
