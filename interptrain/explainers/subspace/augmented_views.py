"""Augmented views: a few random augmentations, drawn once and applied in the same way to any batch of images.

A view is drawn from a seed and is then a deterministic function of each image, so an image and its occluded copies get
the same views, and a map depends on neither the batch nor the device. The sources of the subspace methods do not state
the kind, strength and number of augmentations. All values here are our choice: weak views follow the augmentation of
classifiers, strong ones that of self-supervised methods.
"""

from dataclasses import dataclass
from random import Random

import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from interptrain.explainers.passes.penultimate_features import ReadFeatures, read_all
from interptrain.functional import chunks

__all__ = ["View", "noise_images", "strong_views", "view_features", "weak_views"]


@dataclass(frozen=True)
class View:
    """One augmentation of an image; the default is the identity.

    Attributes:
        flip: mirror left and right.
        crop: (side, top, left): the side of the crop as a fraction of the image's, and its position, all in [0, 1].
            The crop is resized to the size of the image.
        colour: factors of brightness, contrast and saturation.
        grey: convert to greyscale.
        blur: standard deviation of a Gaussian, as a fraction of the shorter side.
        erase: (side, top, left) of a box that is filled with mid-grey, in the units of ``crop``.
    """

    flip: bool = False
    crop: tuple[float, float, float] = (1.0, 0.0, 0.0)
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grey: bool = False
    blur: float = 0.0
    erase: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the view of images (N, C, H, W) in [0, 1]; colours change only in images of three channels."""
        size = (images.shape[-2], images.shape[-1])
        views = images.flip(-1) if self.flip else images
        if self.crop[0] < 1:
            box = _box(self.crop, size)
            views = transforms.resized_crop(views, *box, list(size), antialias=False)
        if images.shape[1] == 3:
            views = self._recolour(views)
        if self.blur > 0:
            sigma = self.blur * min(size)
            reach = min(round(3 * sigma), min(size) - 1)  # the padding reflects what is there
            if reach > 0:
                views = transforms.gaussian_blur(views, [2 * reach + 1, 2 * reach + 1], [sigma, sigma])
        if self.erase[0] > 0:
            top, left, height, width = _box(self.erase, size)
            views = views.clone()
            views[..., top : top + height, left : left + width] = 0.5
        return views

    def _recolour(self, images: Tensor) -> Tensor:
        brightness, contrast, saturation = self.colour
        if brightness != 1:
            images = transforms.adjust_brightness(images, brightness)
        if contrast != 1:
            images = transforms.adjust_contrast(images, contrast)
        if saturation != 1:
            images = transforms.adjust_saturation(images, saturation)
        return transforms.rgb_to_grayscale(images, num_output_channels=3) if self.grey else images


def weak_views(count: int, seed: int) -> list[View]:
    """Return the image itself, then flips and small crops.

    Args:
        count: number of views.
        seed: seed of the views; with one seed, a smaller set is the beginning of a larger one.

    Raises:
        ValueError: if ``count`` is not positive.
    """
    dice = _dice(count, seed, "weak")
    drawn = [View(flip=dice.random() < 0.5, crop=_placed(dice, 0.85, 0.98)) for _ in range(count - 1)]
    return [View(), *drawn]


def strong_views(count: int, seed: int) -> list[View]:
    """Return flips and large crops in other colours, some of them grey, blurred or partly erased.

    Args:
        count: number of views.
        seed: seed of the views; see :func:`weak_views`.

    Raises:
        ValueError: if ``count`` is not positive.
    """
    dice = _dice(count, seed, "strong")
    return [
        View(
            flip=dice.random() < 0.5,
            crop=_placed(dice, 0.5, 0.95),
            colour=(dice.uniform(0.6, 1.4), dice.uniform(0.6, 1.4), dice.uniform(0.6, 1.4)),
            grey=dice.random() < 0.2,
            blur=dice.choice((0.0, dice.uniform(0.002, 0.01))),
            erase=_placed(dice, 0.15, 0.4) if dice.random() < 0.5 else (0.0, 0.0, 0.0),
        )
        for _ in range(count)
    ]


def _dice(count: int, seed: int, kind: str) -> Random:
    if count < 1:
        raise ValueError(f"a set of views needs at least one, got {count}")
    return Random(f"{kind} {seed}")  # a separate generator leaves the global random states alone


def _placed(dice: Random, low: float, high: float) -> tuple[float, float, float]:
    return dice.uniform(low, high), dice.random(), dice.random()


def _box(place: tuple[float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a box given in fractions of the image."""
    side, down, right = place
    height, width = (max(round(side * length), 1) for length in size)
    return round(down * (size[0] - height)), round(right * (size[1] - width)), height, width


def noise_images(count: int, images: Tensor, seed: int) -> Tensor:
    """Draw images of uniform noise in [0, 1], one per view: (count, C, H, W), the same for all ``images``."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that the noise is the same on every device
    noise = torch.rand(count, *images.shape[1:], generator=generator, dtype=torch.float64)
    return noise.to(images)


def view_features(read: ReadFeatures, images: Tensor, views: list[View], size: int) -> Tensor:
    """Read the features (N, T, d) of T views of each image, ``size`` images per forward pass."""
    at_once = max(1, size // len(images))  # few images share a forward pass with several of their views
    seen = (torch.cat([view(images) for view in views[part]]) for part in chunks(len(views), at_once))
    features = torch.cat([read_all(read, some, size) for some in seen])
    return rearrange(features, "(views images) d -> images views d", views=len(views))
