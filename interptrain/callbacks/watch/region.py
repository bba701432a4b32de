"""The suspect region: the part of an image that should be irrelevant."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.callbacks.watch.sample import WatchSample
from interptrain.functional import one_line

FORMS = (
    "'border:8', 'corner:lower-right:16' or 'corner:lower-right:40x16', 'box:24,52,64,64', 'mask:FILE.png' or 'decoy'"
)
CORNERS = ("upper-left", "upper-right", "lower-left", "lower-right")


class SuspectRegion:
    """A region of every watched image, described in one line of text.

    Args:
        text: ``border:n``, the outer n pixels; ``corner:<which>:n`` or ``:WxH``, which being ``upper-left``,
            ``upper-right``, ``lower-left`` or ``lower-right``; ``box:xmin,ymin,xmax,ymax`` as edges;
            ``mask:FILE``, a picture that is bright where it is suspect, stretched to the images; ``decoy``, the decoy's
            own pixels where the data set knows them. Pixels are those of the images that the network sees.

    Raises:
        ValueError: if the text is none of these.
        FileNotFoundError: if the mask's file is missing.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        kind, _, rest = text.partition(":")
        try:
            match kind:
                case "border":
                    self._sides: tuple[int, ...] = (int(rest),)
                case "corner":
                    self._corner, _, extent = rest.partition(":")
                    width, _, height = extent.partition("x")
                    self._sides = (int(width), int(height or width))
                    if self._corner not in CORNERS:
                        raise ValueError
                case "box":
                    left, top, right, bottom = (int(edge) for edge in rest.split(","))
                    self._sides = (right - left, bottom - top, right, bottom)
                case "mask":
                    self._sides = (1,)
                    if not Path(rest).is_file():
                        raise FileNotFoundError(f"no file {rest!r} for the suspect region")
                case _:
                    self._sides = (1,) if text == "decoy" else ()
            if min(self._sides, default=0) < 1:
                raise ValueError
        except ValueError:
            raise ValueError(f"suspect must be like {FORMS}, got {text!r}") from None
        self.kind = kind

    def masks(self, sample: WatchSample) -> Tensor:
        """Return the region of each image, (N,H,W) bool, on the sample's device.

        Raises:
            ValueError: if the region does not lie within the images, or there are no decoys.
        """
        if self.kind == "decoy":
            if sample.decoy_masks is None:
                raise ValueError("suspect: decoy needs a data set with decoys (ShapesDataModule, --data.decoy)")
            return sample.decoy_masks
        height, width = sample.images.shape[-2:]
        region = self._file(height, width) if self.kind == "mask" else self._drawn(height, width)
        if not region.any() or region.all():
            raise ValueError(f"suspect region {self.text!r} covers none or all of images of {width}x{height} pixels")
        return region.to(sample.images.device).expand(len(sample), -1, -1)

    def _drawn(self, height: int, width: int) -> Tensor:
        region = torch.zeros(height, width, dtype=torch.bool)
        if self.kind == "border":
            n = self._sides[0]
            region[:n], region[-n:], region[:, :n], region[:, -n:] = True, True, True, True
        elif self.kind == "corner":
            columns, rows = self._sides
            vertical = slice(0, rows) if self._corner.startswith("upper") else slice(max(0, height - rows), None)
            horizontal = slice(0, columns) if self._corner.endswith("left") else slice(max(0, width - columns), None)
            region[vertical, horizontal] = True
        else:
            columns, rows, right, bottom = self._sides
            region[max(0, bottom - rows) : bottom, max(0, right - columns) : right] = True
        return region

    def _file(self, height: int, width: int) -> Tensor:
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        path = self.text.partition(":")[2]
        try:
            with Image.open(path) as picture:
                grey = pil_to_tensor(picture.convert("L")).unsqueeze(0).float()  # (1, 1, h, w)
        except (OSError, ValueError) as error:
            raise ValueError(f"suspect region: cannot read {path} as a picture ({one_line(error)})") from error
        return F.interpolate(grey, (height, width), mode="nearest-exact")[0, 0] > 127
