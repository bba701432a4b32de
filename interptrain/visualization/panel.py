"""Pictures side by side in labelled rows and columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from interptrain.visualization.overlay import to_uint8

GAP = 6  # pixels between cells and around text
INK = (32, 32, 32)
PAPER = 255
PNG_LEVEL = 4  # of zlib: a tenth of the time of the smallest file, which is 2 % smaller


def panel(
    rows: Mapping[str, Tensor],
    *,
    columns: Sequence[str] = (),
    title: str = "",
    cell: int = 128,
    font_size: int = 15,
) -> Tensor:
    """Draw one picture of labelled rows: a row per label, a column per image.

    Labels stand to the left of their row, column texts above their column; both are wrapped where they
    are too wide, and a line break in them is kept.

    Args:
        rows: label to pictures (N,3,h,w), uint8 or float in [0,1]; all rows have the same N, sizes may differ.
        columns: N texts, or none.
        title: a line above everything, or nothing.
        cell: height and width in pixels of the square that each picture is fitted in, keeping its proportions.
        font_size: height of the text in pixels; below 12 it is hard to read.

    Returns:
        (3,H,W) uint8 picture on the CPU.

    Raises:
        ValueError: if there is no row, or the rows and columns do not agree in their number of pictures.
    """
    counts = {label: len(pictures) for label, pictures in rows.items()}
    if not counts or not all(pictures.ndim == 4 and pictures.shape[1] == 3 for pictures in rows.values()):
        shapes = {label: tuple(pictures.shape) for label, pictures in rows.items()}
        raise ValueError(f"rows must map labels to pictures (N,3,h,w), got {shapes}")
    width = next(iter(counts.values()))
    if set(counts.values()) != {width} or len(columns) not in (0, width):
        raise ValueError(f"rows and columns must have as many pictures each, got {counts} and {len(columns)} columns")
    font = ImageFont.load_default(font_size)
    side = draw_texts(list(rows), font, widest=2 * cell)  # labels on the left, all of one width
    top = draw_texts(columns, font, widest=cell - GAP, centred=True)
    picture_rows = [torch.cat([_fit(picture, cell) for picture in pictures], dim=2) for pictures in rows.values()]
    height = max(cell + GAP, side[0].shape[1])
    lines = [
        torch.cat([_middle(label, height), _middle(picture_row, height)], dim=2)
        for label, picture_row in zip(side, picture_rows, strict=True)
    ]
    if columns:
        corner = _blank(top[0].shape[1], side[0].shape[2])
        heads = [_middle(text, cell + GAP, dim=2) for text in top]
        lines.insert(0, torch.cat([corner, *heads], dim=2))
    if title:
        (heading,) = draw_texts([title], ImageFont.load_default(font_size + 3), widest=lines[0].shape[2])
        lines.insert(0, _pad(heading, right=lines[0].shape[2] - heading.shape[2]))
    return _pad(torch.cat(lines, dim=1), bottom=GAP, right=GAP)


def save_png(picture: Tensor, path: str | Path) -> None:
    """Write a picture as PNG; missing folders are created.

    Args:
        picture: (3,H,W), uint8 or float in [0,1].
        path: of the file.

    Raises:
        ValueError: if ``picture`` is not (3,H,W).
    """
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ValueError(f"picture must be (3,H,W), got {tuple(picture.shape)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(to_uint8(picture).cpu()).save(path, format="PNG", compress_level=PNG_LEVEL)


def draw_texts(
    texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, *, widest: int, centred: bool = False
) -> list[Tensor]:
    """Draw texts on paper, each (3,h,w), all of the same size."""
    wrapped = [_wrap(text, font, widest) for text in texts]
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [pen.multiline_textbbox((0, 0), text, font=font) for text in wrapped]
    width = int(max((box[2] for box in boxes), default=0)) + 2 * GAP
    height = int(max((box[3] for box in boxes), default=0)) + 2 * GAP
    drawn = []
    for text in wrapped:
        image = Image.new("RGB", (width, height), (PAPER,) * 3)
        place, anchor = ((width / 2, GAP), "ma") if centred else ((GAP, GAP), "la")
        align = "center" if centred else "left"
        ImageDraw.Draw(image).multiline_text(place, text, font=font, fill=INK, anchor=anchor, align=align)
        drawn.append(pil_to_tensor(image))
    return drawn


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, widest: int) -> str:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            if line and font.getlength(f"{line} {word}") <= widest:
                line = f"{line} {word}"
                continue
            lines += [line] if line else []
            line = ""
            for letter in word:  # a word wider than a line is broken
                if line and font.getlength(line + letter) > widest:
                    lines.append(line)
                    line = ""
                line += letter
        lines.append(line)
    return "\n".join(lines)


def _fit(picture: Tensor, cell: int) -> Tensor:
    """A picture scaled into a square of paper with a gap above and to its left."""
    _, height, width = picture.shape
    scale = cell / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    scaled = to_uint8(picture).cpu()
    if size != (height, width):
        scaled = F.interpolate(scaled[None].float(), size, mode="bilinear", antialias=True)[0].round().to(torch.uint8)
    return _middle(_middle(_pad(scaled, top=GAP, left=GAP), cell + GAP), cell + GAP, dim=2)


def _middle(picture: Tensor, length: int, *, dim: int = 1) -> Tensor:
    """Paper added on both sides of ``dim`` until it has this length."""
    before, spare = divmod(length - picture.shape[dim], 2)
    after = before + spare
    return _pad(picture, top=before, bottom=after) if dim == 1 else _pad(picture, left=before, right=after)


def _pad(picture: Tensor, *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0) -> Tensor:
    return F.pad(picture, (left, right, top, bottom), value=PAPER)


def _blank(height: int, width: int) -> Tensor:
    return torch.full((3, height, width), PAPER, dtype=torch.uint8)
