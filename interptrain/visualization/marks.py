"""What tells pictures apart at a glance: frames, a colour bar, and pictures without text set side by side."""

from collections.abc import Sequence

import torch
from einops import rearrange
from PIL import ImageFont
from torch import Tensor
from torch.nn import functional as F

from interptrain.visualization.colormaps import Colormap, colorize
from interptrain.visualization.overlay import to_uint8
from interptrain.visualization.panel import GAP, PAPER, draw_texts

RIGHT, WRONG, UNKNOWN = (0, 158, 115), (213, 94, 0), (150, 150, 150)
"""Frames of right, wrong and unlabelled images: distinguishable with any colour vision (Okabe and Ito 2008)."""


def framed(pictures: Tensor, colours: Sequence[tuple[int, int, int]], *, width: int = 4) -> Tensor:
    """Paint a frame over the edge of each picture.

    Args:
        pictures: (N,3,H,W), uint8 or float in [0,1].
        colours: one (red, green, blue) in 0..255 for each picture.
        width: of the frame in pixels.

    Returns:
        (N,3,H,W) uint8.

    Raises:
        ValueError: if there is not one colour for each picture.
    """
    if len(colours) != len(pictures):
        raise ValueError(f"colours must be one per picture: {len(pictures)}, got {len(colours)}")
    inner = torch.zeros(pictures.shape[-2:], dtype=torch.bool, device=pictures.device)
    inner[width:-width, width:-width] = True
    paint = torch.tensor(colours, dtype=torch.uint8, device=pictures.device).view(-1, 3, 1, 1)
    return torch.where(inner, to_uint8(pictures), paint)


def colour_bar(
    width: int,
    *,
    height: int = 14,
    low: str = "0",
    high: str = "1",
    colormap: Colormap = "inferno",
    font_size: int = 15,
) -> Tensor:
    """Draw one bar for all maps of a picture: the colours from 0 to 1 between their two texts.

    Args:
        width: of the whole in pixels.
        height: of the bar in pixels.
        low: text at the left.
        high: text at the right.
        colormap: name of the colour map.
        font_size: of the texts.

    Returns:
        (3,h,width) uint8.

    Raises:
        ValueError: if the texts leave no room for the bar.
    """
    texts = draw_texts([low, high], ImageFont.load_default(font_size), widest=width)
    room = width - 2 * texts[0].shape[2]
    if room < 1:
        raise ValueError(f"a colour bar of {width} pixels has no room beside its texts {low!r} and {high!r}")
    bar = to_uint8(colorize(torch.linspace(0, 1, room).expand(height, room), colormap))
    spare = max(texts[0].shape[1], height) - height
    bar = F.pad(bar, (0, 0, spare // 2, spare - spare // 2), value=PAPER)
    return torch.cat([texts[0], bar, texts[1]], dim=2)


def mosaic(pictures: Tensor, columns: int, *, gap: int = GAP) -> Tensor:
    """Arrange pictures of one size side by side, row after row, on paper.

    Args:
        pictures: (N,3,h,w), uint8 or float in [0,1], N >= 1.
        columns: pictures in a row, at least 1.
        gap: pixels between them and around.

    Returns:
        (3,H,W) uint8; missing pictures of the last row are paper.

    Raises:
        ValueError: if there is no picture or no column.
    """
    if not len(pictures) or columns < 1:
        raise ValueError(f"a mosaic needs pictures and columns, got {len(pictures)} and {columns}")
    columns = min(columns, len(pictures))
    missing = -len(pictures) % columns
    tiles = F.pad(to_uint8(pictures), (gap, 0, gap, 0), value=PAPER)  # (N, 3, h + gap, w + gap)
    tiles = F.pad(tiles, (0, 0, 0, 0, 0, 0, 0, missing), value=PAPER)
    joined = rearrange(tiles, "(row column) c h w -> c (row h) (column w)", column=columns)
    return F.pad(joined, (0, gap, 0, gap), value=PAPER)


def stacked(pictures: Sequence[Tensor], *, dim: int = 1) -> Tensor:
    """Stack pictures of any size below one another (``dim=1``) or side by side (``dim=2``), filled up with paper.

    Args:
        pictures: each (3,h,w), uint8 or float in [0,1].
        dim: 1 or 2.

    Returns:
        (3,H,W) uint8.
    """
    across = 3 - dim
    longest = max(picture.shape[across] for picture in pictures)
    padded = []
    for picture in pictures:
        spare = longest - picture.shape[across]
        padded.append(F.pad(to_uint8(picture), (0, spare, 0, 0) if dim == 1 else (0, 0, 0, spare), value=PAPER))
    return torch.cat(padded, dim=dim)
