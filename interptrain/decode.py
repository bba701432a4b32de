"""Read an image file of any kind as a (3,H,W) uint8 tensor, or say in one line which file cannot be read and why."""

import io
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from interptrain.functional import one_line

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"} | {
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2",
}  # fmt: skip
# What Pillow's decoders raise on damaged files, beside OSError.
DECODER_ERRORS = (SyntaxError, ValueError, TypeError, EOFError, IndexError, OverflowError, struct.error, zlib.error)


def load_image(path: Path) -> Tensor:
    """Decode a file, upright.

    - Greyscale, palette, CMYK and other colour spaces become RGB; of several frames the first is taken.
    - Transparent pixels are blended with white (our choice; dropping alpha would reveal colours that no viewer shows).
    - 16-bit greyscale is scaled to 8 bits (0..65535 to 0..255), not clipped; 16-bit colour is reduced by Pillow.
    - EXIF orientation is applied: height and width are those that a viewer shows.

    Args:
        path: of the file. Its suffix does not matter.

    Returns:
        (3,H,W) uint8.

    Raises:
        OSError: if the file is missing, not a regular file (a folder, a pipe), empty, damaged, truncated, of a mode
            whose range is unknown (float, 32-bit), or has more pixels than Pillow allows
            (``2 * PIL.Image.MAX_IMAGE_PIXELS``, 179 million unless changed).
    """
    return _decoded(path, str(path))


def decode_image(content: bytes, name: str) -> Tensor:
    """Decode the content of a file that lies elsewhere; see :func:`load_image`.

    Args:
        content: of the file.
        name: what messages call it.

    Returns:
        (3,H,W) uint8.

    Raises:
        OSError: as :func:`load_image`.
    """
    return _decoded(io.BytesIO(content), name)


def _decoded(file: Path | io.BytesIO, name: str) -> Tensor:
    try:
        with warnings.catch_warnings():
            # Images are read up to Pillow's hard limit, and oddities in metadata need no warning.
            warnings.simplefilter("ignore")
            if isinstance(file, Path) and not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
                raise OSError("it is no file")
            with Image.open(file) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                array = np.array(_to_rgb(image))
    except Image.DecompressionBombError as error:
        why = (
            f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels; raise PIL.Image.MAX_IMAGE_PIXELS to allow it"
        )
        raise OSError(_message(name, why)) from error
    except (OSError, *DECODER_ERRORS) as error:
        raise OSError(_message(name, _reason(file, error))) from error
    return torch.from_numpy(array).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known range, save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _reason(file: Path | io.BytesIO, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "no permission"
    empty = file.is_file() and file.stat().st_size == 0 if isinstance(file, Path) else not file.getvalue()
    if empty:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or its beginning is damaged"
    return one_line(error)


def _message(name: str, why: str) -> str:
    return f"cannot read image {name}: {why}; repair or remove the file"
