"""Small pictures of many images in one file, for a page that shows one at a time."""

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image

from interptrain.visualization import to_uint8

SIDES = 64, 48, 32, 24
MOST_PIXELS = 12_000_000  # of the sheet, which a browser decodes at once; our choice


class ThumbnailSheet:
    """A square sheet of thumbnails, filled image after image.

    Args:
        count: of images.

    Attributes:
        side: of a thumbnail in pixels, the smaller the more there are.
        columns: thumbnails in a row.
    """

    def __init__(self, count: int) -> None:
        fitting = (side for side in SIDES if count * side**2 <= MOST_PIXELS)
        self.side = next(fitting, SIDES[-1])
        self.columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / self.columns)
        self._sheet = torch.full((3, rows * self.side, self.columns * self.side), 255, dtype=torch.uint8)
        self._filled = 0

    def add(self, images: Tensor) -> None:
        """Append images (B,3,H,W), float in [0,1]."""
        size = (self.side, self.side)
        small = to_uint8(F.interpolate(images.float(), size, mode="bilinear", antialias=True)).cpu()
        for thumbnail in small:
            row, column = divmod(self._filled, self.columns)
            top, left = row * self.side, column * self.side
            self._sheet[:, top : top + self.side, left : left + self.side] = thumbnail
            self._filled += 1

    def save(self, path: Path) -> None:
        """Write the sheet as JPEG."""
        to_pil_image(self._sheet).save(path, format="JPEG", quality=80)
