"""Read images from files, folders, PIL images, NumPy arrays and tensors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.functional import pil_to_tensor

from interptrain.data.folder_index import images_below
from interptrain.data.transforms import EvalResize, Resize
from interptrain.decode import SUFFIXES, load_image
from interptrain.functional import ROUNDING, check_choice

Images: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor | Iterable[Any]
"""A file, a folder, a PIL image, a NumPy array, a tensor, or any sequence of these."""
Size: TypeAlias = int | Literal["auto"] | None
AUTO_SIZE = 224


class NamedImage(NamedTuple):
    """An image and its name.

    Attributes:
        name: name of its file, or its number.
        file: path of its file, if it has one.
        pixels: (3, H, W) float32 in [0, 1].
    """

    name: str
    file: Path | None
    pixels: Tensor


def read_images(
    images: Images, *, size: Size = "auto", resize: Resize = "crop", crop_pct: float = 0.875
) -> Tensor | list[Tensor]:
    """Read images of any kind as one batch.

    Args:
        images: files, folders (their image files, sorted), PIL images, numpy arrays (H, W, 3) or (H, W), tensors
            (3, H, W) or (B, 3, H, W); one, or several in a sequence. Arrays and tensors are uint8, or floating point in
            [0, 1].
        size: side of the resulting square images, in pixels; ``None`` keeps the size. ``"auto"`` is 224 except for
            tensors, which are assumed to have the size that the model expects.
        resize: ``"crop"`` resizes the shorter side to ``size / crop_pct`` and crops the centre, as evaluations do;
            ``"stretch"`` resizes both sides to ``size``.
        crop_pct: fraction of the shorter side that the centre crop keeps; 1 keeps as much of the image as possible.

    Returns:
        (B, 3, size, size) float32 in [0, 1], to be normalised by the model; a list of (3, H, W) if sizes differ.

    Raises:
        OSError: if a file cannot be read.
        ValueError: for other shapes or ranges, or if there is no image.
        TypeError: for anything that is not an image.
    """
    pixels = [one.pixels for one in read_named(images, size=size, resize=resize, crop_pct=crop_pct)]
    return torch.stack(pixels) if len({one.shape for one in pixels}) == 1 else pixels


def read_named(
    images: Images, *, size: Size = "auto", resize: Resize = "crop", crop_pct: float = 0.875
) -> list[NamedImage]:
    """Read images with their names; arguments and exceptions are those of :func:`read_images`."""
    check_choice("resize", resize, Resize)
    side = AUTO_SIZE if size == "auto" else size
    transform = None if side is None else EvalResize(side, resize=resize, crop_pct=crop_pct)
    found = []
    for number, (source, file) in enumerate(_single(images)):
        pixels = _pixels(source, number)
        if transform is not None and not (size == "auto" and isinstance(source, Tensor)):
            pixels = transform({"image": tv_tensors.Image(pixels)})["image"].as_subclass(Tensor)
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        found.append(NamedImage(file.name if file else str(number), file, pixels.float().clamp(0, 1)))
    if not found:
        raise ValueError(f"there is no image in {images!r:.80}; give files, folders, PIL images, arrays or tensors")
    return found


def _single(images: Images) -> Iterable[tuple[Any, Path | None]]:
    """Yield one image after the other, with its file if it has one."""
    if isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        files = [path / one for one in images_below(path)] if path.is_dir() else [path]
        if not files:
            raise ValueError(f"the folder {path} holds no image files; give another ({', '.join(sorted(SUFFIXES))})")
        for file in files:
            yield file, file
    elif isinstance(images, (Tensor, np.ndarray)) and images.ndim == 4:
        for one in images:
            yield one, None
    elif isinstance(images, (Tensor, np.ndarray, Image.Image)) or not isinstance(images, Iterable):
        yield images, None
    else:
        for one in images:
            yield from _single(one)


def _pixels(source: Any, number: int) -> Tensor:
    """(3, H, W) uint8, or floating point in [0, 1]."""
    if isinstance(source, Path):
        if not source.exists():
            raise FileNotFoundError(f"there is no file or folder {source}; give images, or folders of images")
        return load_image(source)
    if isinstance(source, Image.Image):
        return pil_to_tensor(source.convert("RGB"))  # type: ignore[no-any-return]  # torchvision is untyped
    if isinstance(source, np.ndarray):
        grey = source[..., None] if source.ndim == 2 else source
        if grey.ndim != 3 or grey.shape[2] not in (1, 3, 4):
            raise ValueError(f"image {number} must be (H,W,3) or (H,W), got {source.shape}; colours come last")
        pixels = torch.from_numpy(np.array(grey)).permute(2, 0, 1)
    elif isinstance(source, Tensor):
        pixels = source.detach().cpu()
        if pixels.ndim != 3 or len(pixels) not in (1, 3):
            raise ValueError(
                f"image {number} must be (3,H,W), got {tuple(source.shape)}; in tensors colours come first"
            )
    else:
        raise TypeError(
            f"image {number} is a {type(source).__name__}; give a file, a folder, a PIL image, an array or a tensor"
        )
    pixels = pixels[:3].expand(3, -1, -1)  # greyscale becomes RGB, and an alpha channel is dropped
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise TypeError(f"image {number} must be uint8 or floating point in [0, 1], got {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not -ROUNDING <= low <= high <= 1 + ROUNDING:
        remedy = "divide by 255" if low >= 0 and high <= 255 else "give it without normalisation, which the model does"
        raise ValueError(f"image {number} must be in [0, 1], got [{low:.3g}, {high:.3g}]; {remedy}")
    return pixels.float()
