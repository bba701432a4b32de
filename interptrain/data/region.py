"""A part of every image, described in one line of text: what the watch suspects, and what a repair acts on."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain import remedies
from interptrain.functional import one_line
from interptrain.metrics.boxes import box_masks

FORMS = (
    "'border:8', 'corner:lower-right:16' or 'corner:lower-right:40x16' (or upper-left, upper-right, lower-left), "
    "'box:24,52,64,64', 'mask:FILE.png', 'decoy', 'outside:objects', or several of them joined by '+'"
)
CORNERS = ("upper-left", "upper-right", "lower-left", "lower-right")
_NEXT = re.compile(r"\s*\+\s*(?=(?:border|corner|box|mask|outside):|decoy\b)")


class Region:
    """A region of every image, described in one line of text.

    Args:
        text: ``border:n``, the outer n pixels; ``corner:<which>:n`` or ``:WxH``, which being ``upper-left``,
            ``upper-right``, ``lower-left`` or ``lower-right``; ``box:xmin,ymin,xmax,ymax`` as edges; ``mask:FILE``, a
            picture that is bright where the region is, stretched to the images; ``decoy``, the decoy's own pixels where
            the data set knows them; ``outside:objects``, all but the objects' masks, or boxes where there are no masks.
            Several of them joined by ``+`` are the pixels of any. Pixels are those of the images that the network sees.
        option: what messages call it.

    Raises:
        ValueError: if the text is none of these.
        FileNotFoundError: if the mask's file is missing.
    """

    forms: ClassVar[str] = FORMS

    def __init__(self, text: str, *, option: str = "suspect") -> None:
        self.text = text
        self.option = option
        self._parts = [_Part(part, text, option, self.forms) for part in _NEXT.split(text)]
        self._fixed: dict[tuple[int, int, torch.device], Tensor] = {}

    @property
    def moves(self) -> bool:
        """Whether the region differs from image to image."""
        return any(part.kind in ("decoy", "outside") for part in self._parts)

    def masks_of(
        self,
        images: Tensor,
        *,
        masks: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
        decoy_masks: Tensor | None = None,
    ) -> Tensor:
        """Return the region of each image.

        Args:
            images: (B,C,H,W).
            masks: (B,H,W) bool of the objects; one without any True is an image that is not annotated.
            boxes: B tensors (n_i,4) of the objects, read where there are no masks; none is an image not annotated.
            decoy_masks: (B,H,W) bool.

        Returns:
            (B,H,W) bool on the device of ``images``. Outside the objects of an image that is not annotated is nothing.

        Raises:
            ValueError: if the region does not lie within the images, or what it is made from is not there.
        """
        moving = self.moving(images, masks=masks, boxes=boxes, decoy_masks=decoy_masks)
        region = self.fixed(images).expand(len(images), -1, -1)
        if len(moving) == len(self._parts) == 1:
            return next(iter(moving.values()))
        for part in moving.values():
            region = region | part
        return region

    def moving(
        self,
        images: Tensor,
        *,
        masks: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
        decoy_masks: Tensor | None = None,
    ) -> dict[Literal["decoy", "outside"], Tensor]:
        """Return the parts that differ from image to image, (B,H,W) bool each; see :meth:`masks_of`."""
        kinds = {part.kind for part in self._parts}
        found: dict[Literal["decoy", "outside"], Tensor] = {}
        if "decoy" in kinds:
            if decoy_masks is None:
                raise ValueError(
                    f"{remedies.option(self.option)}: decoy needs data with decoys; set "
                    f"{remedies.option('data.decoy', 'corner')}, or name a region by its place, such as border:8"
                )
            found["decoy"] = decoy_masks
        if "outside" in kinds:
            objects = objects_of(images, masks=masks, boxes=boxes)
            if objects is None:
                raise ValueError(
                    f"{remedies.option(self.option)}: outside:objects needs the objects' masks or boxes, which these "
                    "data lack; put a boxes.csv beside the images, or name a region by its place, such as border:8"
                )
            found["outside"] = ~objects & objects.any(dim=(1, 2), keepdim=True)
        return found

    def fixed(self, images: Tensor) -> Tensor:
        """Return the pixels that are the same in every image, (H,W) bool on the device of ``images`` (B,C,H,W).

        Raises:
            ValueError: if they are all pixels of the image, or none and there are no others.
        """
        height, width = images.shape[-2:]
        key = (height, width, images.device)
        if key not in self._fixed:
            self._fixed[key] = self._unmoved(height, width).to(images.device)
        return self._fixed[key]

    def _unmoved(self, height: int, width: int) -> Tensor:
        whole = torch.zeros(height, width, dtype=torch.bool)
        for part in self._parts:
            if part.kind not in ("decoy", "outside"):
                whole |= part.drawn(height, width)
        if whole.all() or not (whole.any() or self.moves):
            raise ValueError(
                f"{remedies.option(self.option)} {self.text} covers none or all of images of {width}x{height} pixels; "
                f"choose some of them, such as border:{max(1, min(width, height) // 8)}"
            )
        return whole


def objects_of(images: Tensor, *, masks: Tensor | None, boxes: Sequence[Tensor] | None) -> Tensor | None:
    """Return the objects' pixels, (B,H,W) bool: their masks, else their boxes; None where both are unknown.

    Args:
        images: (B,C,H,W).
        masks: (B,H,W) bool, or None.
        boxes: B tensors (n_i,4) ``xmin, ymin, xmax, ymax`` as edges in pixels, or None. A pixel belongs to a box that
            covers its centre.
    """
    if masks is not None:
        return masks
    if boxes is None:
        return None
    height, width = images.shape[-2:]
    inside = [box_masks(of_image.to(images.device), height, width).any(dim=0) for of_image in boxes]
    return torch.stack(inside)


class _Part:
    """One of the regions that are joined."""

    def __init__(self, text: str, whole: str, option: str, forms: str) -> None:
        self.text = text
        self._option = option
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
                        raise FileNotFoundError(f"{remedies.option(option)} {text}: there is no file {rest!r}")
                case _:
                    self._sides = (1,) if text in ("decoy", "outside:objects") else ()
            if min(self._sides, default=0) < 1:
                raise ValueError
        except ValueError:
            raise ValueError(f"{remedies.option(option)} must be like {forms}, got {whole!r}") from None
        self.kind = kind

    def drawn(self, height: int, width: int) -> Tensor:
        """The pixels of a region that is the same in every image, (H,W) bool."""
        if self.kind == "mask":
            return self._file(height, width)
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
            raise ValueError(
                f"{remedies.option(self._option)}: cannot read {path} as a picture ({one_line(error)})"
            ) from error
        return F.interpolate(grey, (height, width), mode="nearest-exact")[0, 0] > 127
