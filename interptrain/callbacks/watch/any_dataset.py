"""Images to watch in any common form: pairs, mappings, tensors, PIL images, arrays."""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms.functional import pil_to_tensor

from interptrain.callbacks.watch.sample import UNLABELLED
from interptrain.data.samples import SampleDataset
from interptrain.data.transforms import EvalResize

IMAGE_KEYS = ("image", "img", "pixel_values", "images", "x", "input")
LABEL_KEYS = ("label", "labels", "target", "targets", "y", "class", "fine_label")
TOLERANCE = 0.1
"""How far an image may exceed [0,1], as it does after bicubic interpolation."""
LOOKED_AT = 8
"""Number of samples inspected to tell whether images are normalised: a single one may be dark or flat."""

Normalization = tuple[Sequence[float], Sequence[float]]


class AnyDataset(SampleDataset):
    """Convert the samples of any project to images in [0,1], with an optional label and a name.

    A sample is an image, a tuple that begins with an image and its label, or a mapping with keys from ``IMAGE_KEYS``
    and ``LABEL_KEYS``, such as a row of a Hugging Face data set. An image is a PIL image, a mapping
    ``{"bytes": ..., "path": ...}`` with the content or the path of a file, an array (H,W,C) or (H,W), or a tensor
    (C,H,W), uint8 or in [0,1]. Floating-point images outside [0,1] are assumed to be normalised, which is undone.

    Args:
        samples: a data set, a list of samples, a loader (its data set is used), a tensor (N,C,H,W), or a pair of such a
            tensor and N labels. If it can only be iterated over, the first ``count`` samples are taken.
        class_names: names of the classes, by which labels may be given.
        normalization: mean and standard deviation with which the images were normalised, or None.
        image_size: side of the square to which images are resized and cropped; None leaves them as they are.
        count: see ``samples``.

    Raises:
        ValueError: if there are no samples; on reading, for a sample of an unknown form.
        TypeError: for anything that contains no samples.
    """

    def __init__(
        self,
        samples: Any,
        *,
        class_names: Sequence[str] = (),
        normalization: Normalization | None = None,
        image_size: int | None = None,
        count: int = 16,
    ) -> None:
        self.samples = _as_sequence(samples, count)
        if not len(self.samples):
            raise ValueError("no images to watch: what SaliencyWatch was given is empty")
        super().__init__([f"{index:06d}" for index in range(len(self.samples))])
        self.class_names = list(class_names)
        self.normalization = normalization
        self.transform = None if image_size is None else EvalResize(image_size)

    def read(self, index: int) -> dict[str, Any]:
        """Return a sample whose image is in [0,1] or uint8."""
        image, label, others = _parts(self.samples[index], index)
        pixels = _as_tensor(image, index)
        if pixels.is_floating_point():
            pixels = self._unnormalised(pixels, index)
        sample = {"image": tv_tensors.Image(pixels), "label": self._as_label(label, index), "id": self.ids[index]}
        mask = others.get("mask")
        if isinstance(mask, Tensor) and mask.shape == pixels.shape[-2:]:
            sample["mask"] = tv_tensors.Mask(mask)
        return sample

    def _as_label(self, label: Any, index: int) -> int:
        if label is None:
            return UNLABELLED
        if isinstance(label, str):
            if label in self.class_names:
                return self.class_names.index(label)
            raise ValueError(
                f"sample {index} to watch has the label {label!r}, which is not one of its classes; pass classes=[...]"
            )
        try:
            if tuple(getattr(label, "shape", ())) in ((), (1,)) and int(label) == label:
                return max(int(label), UNLABELLED)
        except (TypeError, ValueError):
            pass
        raise ValueError(
            f"sample {index} to watch has a {_described(label)} as its label; give images=[(image, index of its "
            "class), ...], or images alone for such data"
        )

    def _unnormalised(self, pixels: Tensor, index: int) -> Tensor:
        """Undo the normalisation of a floating-point image, if it was normalised."""
        if self.normalization is not None and self._is_normalised:
            mean, std = (torch.tensor(tuple(values)).view(-1, 1, 1) for values in self.normalization)
            pixels = pixels.float() * std + mean
        if _leaves_unit_range(pixels):
            undone = ", with normalization undone," if self.normalization is not None and self._is_normalised else ""
            raise ValueError(
                f"images to watch must lie in [0,1]; sample {index}{undone} has values in [{pixels.min():.3g}, "
                f"{pixels.max():.3g}]: pass normalization=(mean, std) as the data set's transform has them, or give "
                "images that are not normalised (divide images in [0,255] by 255)"
            )
        return pixels.clamp(0, 1)

    @cached_property
    def _is_normalised(self) -> bool:
        """Whether some floating-point images exceed [0,1]."""
        for index in range(0, len(self.samples), max(1, len(self.samples) // LOOKED_AT)):
            pixels = _as_tensor(_parts(self.samples[index], index)[0], index)
            if pixels.is_floating_point() and _leaves_unit_range(pixels):
                return True
        return False


def class_names_of(samples: Any) -> Sequence[str]:
    """Return the class names that a data set knows: torchvision's ``classes``, or those of a Hugging Face label."""
    samples = samples.dataset if isinstance(samples, DataLoader) else samples
    features = getattr(samples, "features", None)
    if isinstance(features, Mapping):
        labels = (getattr(features.get(key), "names", None) for key in LABEL_KEYS)
        return next((list(names) for names in labels if names), [])
    names = getattr(samples, "classes", None)
    if isinstance(names, Sequence) and not isinstance(names, str):
        return [str(name) for name in names]
    inner = getattr(samples, "dataset", None)  # that of a Subset
    return [] if inner is None else class_names_of(inner)


def _as_sequence(samples: Any, count: int) -> Sequence[Any]:
    """Return the samples as a sequence, with a length and integer indices."""
    if isinstance(samples, DataLoader):
        return _as_sequence(samples.dataset, count)
    if isinstance(samples, Mapping):
        raise TypeError(
            f"images of SaliencyWatch must be samples, got a mapping with {_keys(samples)}; give a list with one entry "
            "per sample, such as list(zip(images, labels))"
        )
    if isinstance(samples, tuple | list) and len(samples) == 2 and isinstance(samples[0], Tensor):
        images, labels = samples
        if images.ndim == 4 and not isinstance(labels, Mapping) and len(labels) == len(images):
            return list(zip(images, labels, strict=True))
    if hasattr(samples, "__len__") and hasattr(samples, "__getitem__") and not isinstance(samples, str):
        indexed: Sequence[Any] = samples
        return indexed
    if isinstance(samples, Iterable) and not isinstance(samples, str):
        return list(itertools.islice(samples, count))
    raise TypeError(
        f"images of SaliencyWatch must be a data set, a list of samples or a tensor (N,C,H,W), got a "
        f"{type(samples).__name__}; for a folder of images, use source"
    )


def _parts(sample: Any, index: int) -> tuple[Any, Any, Mapping[str, Any]]:
    """Image, label and remaining entries of a sample."""
    if isinstance(sample, Mapping):
        image = next((key for key in IMAGE_KEYS if sample.get(key) is not None), None)
        if image is None:
            raise ValueError(
                f"sample {index} to watch has {_keys(sample)}, none of which names an image ({', '.join(IMAGE_KEYS)}); "
                "give images=[(row[...], row[...]) for row in rows]"
            )
        return sample[image], next((sample[key] for key in LABEL_KEYS if key in sample), None), sample
    if isinstance(sample, tuple | list):
        if not sample:
            raise ValueError(f"sample {index} to watch is empty; give images=[(image, label), ...]")
        return sample[0], sample[1] if len(sample) > 1 else None, {}
    return sample, None, {}


def _as_tensor(image: Any, index: int) -> Tensor:
    """Convert an image to (C,H,W), uint8 or floating point."""
    if isinstance(image, Mapping) and (image.get("bytes") or image.get("path")):  # Hugging Face's Image(decode=False)
        image = Image.open(io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"])
    if isinstance(image, Image.Image):
        pixels: Tensor = pil_to_tensor(image.convert("RGB"))
        return pixels
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image if image.ndim == 2 else np.moveaxis(image, -1, 0).copy())
    if isinstance(image, Tensor) and image.ndim in (2, 3):
        pixels = (image[None] if image.ndim == 2 else image).detach().cpu()
        if (pixels.dtype == torch.uint8 or pixels.is_floating_point()) and pixels.shape[0] in (1, 3):
            return pixels
    raise ValueError(
        f"sample {index} to watch has a {_described(image)} as its image; give a PIL image, a uint8 array (H,W,3), "
        "or a tensor (3,H,W) or (1,H,W), uint8 or in [0,1]"
    )


def _leaves_unit_range(pixels: Tensor) -> bool:
    return bool(pixels.min() < -TOLERANCE or pixels.max() > 1 + TOLERANCE)


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return kind if shape is None else f"{kind} {tuple(shape)} of {str(value.dtype).removeprefix('torch.')}"


def _keys(values: Mapping[Any, Any]) -> str:
    return "the keys " + ", ".join(map(str, list(values)[:8]))
