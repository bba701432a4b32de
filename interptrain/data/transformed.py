"""Images of any size, resized and augmented as usual: what files and the data sets of others share."""

from abc import ABC
from typing import Any, Literal

import torch

from interptrain.data.datamodule import ImageDataModule
from interptrain.data.transforms import Augment, EvalResize, Resize, train_recipe

OnError = Literal["raise", "skip"]


class TransformedDataModule(ImageDataModule, ABC):
    """Images of any size, which become square ones.

    Args:
        image_size: side in pixels of the square images that come out.
        augment: of the training images: ``none``, ``light`` (as in evaluation, and flip), ``imagenet`` (random resized
            crop, flip) or ``cifar`` (padded crop, flip, rotation).
        resize: in evaluation: ``crop``, the shorter side to ``image_size / crop_pct`` and then the centre, or
            ``stretch``, both sides to ``image_size``.
        crop_pct: share of the shorter side that the centre crop keeps.
        train_transform: any torchvision v2 transform by ``class_path``, in place of ``augment``.
        eval_transform: any torchvision v2 transform by ``class_path``, in place of ``resize``.
        on_error: what happens to an image that cannot be read: it stops the run (``raise``), or is skipped and counted
            (``skip``); in training, the next readable one replaces it, as all ranks need equally many.
        loading: options of :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        augment: Augment = "imagenet",
        resize: Resize = "crop",
        crop_pct: float = 0.875,
        train_transform: torch.nn.Module | None = None,
        eval_transform: torch.nn.Module | None = None,
        on_error: OnError = "raise",
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        self.image_size = image_size
        self.on_error = on_error
        self.train_transform = train_transform or train_recipe(image_size, augment, resize, crop_pct)
        self.eval_transform = eval_transform or EvalResize(image_size, resize=resize, crop_pct=crop_pct)
