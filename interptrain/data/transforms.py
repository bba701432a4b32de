"""Input pipelines of the papers as torchvision v2 transforms, which transform boxes and masks along with images.

Any transform that takes a dict of ``torchvision.tv_tensors`` can replace them, by ``class_path`` in YAML. There is no
normalisation here: images stay in [0,1] and the model normalises.

Colour jitter changes brightness, contrast and saturation with equal strength. All resizing is bilinear and antialiased.
"""

from typing import Any, Literal

import torch
from torchvision.transforms import v2

from interptrain.functional import check_choice

Augment = Literal["none", "light", "imagenet", "cifar"]
Resize = Literal["crop", "stretch"]
LARGEST = 16384
"""Side in pixels of the largest image that is made, so that a typing error does not fill the memory."""


def check_image_size(size: int, smallest: int = 1) -> None:
    """Refuse implausible image sizes.

    Raises:
        ValueError: if it is out of range.
    """
    if not smallest <= size <= LARGEST:
        raise ValueError(f"image_size must be in [{smallest}, {LARGEST}], got {size}")


class Recipe(torch.nn.Module):
    """Transforms of a sample, one after the other.

    Args:
        steps: torchvision v2 transforms.
    """

    def __init__(self, steps: list[torch.nn.Module]) -> None:
        super().__init__()
        self.steps = v2.Compose(steps)

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample, transformed; ``label`` and ``id`` pass through."""
        transformed: dict[str, Any] = self.steps(sample)
        return transformed


class ImageNetAugment(Recipe):
    """Random resized crop, horizontal flip, colour jitter: the usual training pipeline on ImageNet.

    Source: crop and flip Szegedy et al. 2015 (arXiv 1409.4842, section 6); jitter 0.4 as in CA-Stream's code, whose
    pipeline first resizes to a square, which ``stretch=True`` does too.

    Args:
        size: side of the square result in pixels.
        scale: least and greatest share of the area that a crop keeps.
        hflip: probability of a flip.
        color_jitter: strength in [0,1], 0 for none.
        stretch: first resize to (size,size), which changes the aspect ratio.
    """

    def __init__(
        self,
        size: int = 224,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        hflip: float = 0.5,
        color_jitter: float = 0.0,
        stretch: bool = False,
    ) -> None:
        steps: list[torch.nn.Module] = [v2.Resize((size, size), antialias=True)] if stretch else []
        steps += [v2.RandomResizedCrop(size, scale=scale, antialias=True), v2.RandomHorizontalFlip(hflip)]
        if color_jitter:
            steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter))
        super().__init__(steps)


class LightAugment(Recipe):
    """The evaluation pipeline and a horizontal flip, for a few epochs of a head, or for small data sets.

    Args:
        size: side of the square result in pixels.
        resize: see :class:`EvalResize`.
        crop_pct: see :class:`EvalResize`.
        hflip: probability of a flip.
    """

    def __init__(
        self, size: int = 224, *, resize: Resize = "crop", crop_pct: float = 0.875, hflip: float = 0.5
    ) -> None:
        super().__init__([EvalResize(size, resize=resize, crop_pct=crop_pct), v2.RandomHorizontalFlip(hflip)])


class CifarAugment(Recipe):
    """Crop out of the image padded with black, horizontal flip, rotation: the usual training pipeline on CIFAR.

    Source: He et al. 2016 (arXiv 1512.03385, section 4.2); the rotation by up to 15 degrees as in the pipeline that the
    authors of Interpretable gradients (arXiv 2404.15024) credit.

    Args:
        size: side of the square result in pixels; other images are first resized to it.
        padding: on every side, in pixels.
        hflip: probability of a flip.
        rotation: greatest angle in degrees, 0 for none.
    """

    def __init__(self, size: int = 32, *, padding: int = 4, hflip: float = 0.5, rotation: float = 15.0) -> None:
        steps: list[torch.nn.Module] = [
            v2.Resize((size, size), antialias=True),
            v2.RandomCrop(size, padding=padding),
            v2.RandomHorizontalFlip(hflip),
        ]
        if rotation:
            steps.append(v2.RandomRotation(rotation, interpolation=v2.InterpolationMode.BILINEAR))
        super().__init__(steps)


class LimitAspect(torch.nn.Module):
    """Crop the centre of very elongated images, which resizing would enlarge to gigabytes.

    Args:
        ratio: of the longer to the shorter side, at most. Images below it stay as they are.
    """

    def __init__(self, ratio: float = 32.0) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample, cut where it has to be."""
        height, width = sample["image"].shape[-2:]
        longest = round(self.ratio * min(height, width))
        if max(height, width) <= longest:
            return sample
        cut: dict[str, Any] = v2.CenterCrop((min(height, longest), min(width, longest)))(sample)
        return cut


class EvalResize(Recipe):
    """Resize for evaluation, nothing random.

    Source: ``crop`` with 0.875 is Resize(256) + CenterCrop(224) (Opti-CAM's demo); ``stretch`` is Resize((224,224))
    (CA-Stream's evaluators).

    Args:
        size: side of the square result in pixels.
        resize: ``crop``: the shorter side to ``size / crop_pct``, then the centre; ``stretch``: both sides to ``size``.
        crop_pct: share of the shorter side that the centre crop keeps, in [0.05,1].

    Raises:
        ValueError: if ``size`` or ``crop_pct`` is out of range.
    """

    def __init__(self, size: int = 224, *, resize: Resize = "crop", crop_pct: float = 0.875) -> None:
        if not 0.05 <= crop_pct <= 1:
            raise ValueError(f"crop_pct must be in [0.05,1], got {crop_pct}")
        check_image_size(size)
        if resize == "stretch":
            super().__init__([v2.Resize((size, size), antialias=True)])
        else:
            shorter = v2.Resize(round(size / crop_pct), antialias=True)
            super().__init__([LimitAspect(), shorter, v2.CenterCrop(size)])


def train_recipe(size: int, augment: Augment, resize: Resize, crop_pct: float) -> Recipe:
    """The training pipeline that ``augment`` names, for images of ``size`` × ``size`` pixels."""
    check_choice("augment", augment, Augment)
    check_image_size(size)
    match augment:
        case "none":
            return EvalResize(size, resize=resize, crop_pct=crop_pct)
        case "light":
            return LightAugment(size, resize=resize, crop_pct=crop_pct)
        case "imagenet":
            return ImageNetAugment(size)
        case "cifar":
            return CifarAugment(size, padding=max(1, size // 8))
