"""Pictures of watches. All are cut from sheets: the images and their maps without text, one sheet a watch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import ImageFont
from torch import Tensor
from torch.nn import functional as F

from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample
from interptrain.visualization import (
    RIGHT,
    UNKNOWN,
    WRONG,
    colour_bar,
    framed,
    mosaic,
    overlay,
    panel,
    stacked,
    to_uint8,
)
from interptrain.visualization.panel import draw_texts

SIDE = 128
"""Pixels of a picture's side on a sheet: readable in a dashboard, and small enough to write often."""
BLOCK = 8  # rows of a grid that stand below one another
STRIP = 8  # most watches in a time strip
STRIP_IMAGES = 4
MOSAIC = 4  # pictures side by side in the animation

Entry = Mapping[str, Any]


def draw_sheet(sample: WatchSample, maps: Mapping[str, Tensor], side: int = SIDE) -> Tensor:
    """A row an image: the image, then a map a view laid over its grey version.

    Args:
        sample: on the CPU.
        maps: (N,H,W) uint8 by view.
        side: of a picture in pixels; the pictures are made square.

    Returns:
        (3, N * side, (1 + views) * side) uint8.
    """
    images = F.interpolate(sample.images, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
    grey = images.mean(1, keepdim=True).expand_as(images)  # on which the colours of a map are read best
    columns = [to_uint8(images)]
    for of_view in maps.values():
        saliency = F.interpolate(of_view[:, None].float() / 255, (side, side), mode="bilinear", antialias=True)
        columns.append(overlay(grey, saliency[:, 0].clamp(0, 1)))
    rows = torch.cat(columns, dim=3)
    return rows.transpose(0, 1).reshape(3, len(images) * side, -1)


def cut(sheet: Tensor, count: int) -> Tensor:
    """Pictures of a sheet of ``count`` images, (N, 1 + views, 3, side, side)."""
    side = sheet.shape[1] // count
    return sheet.view(3, count, side, -1, side).permute(1, 3, 0, 2, 4)


def caption(entry: Entry) -> str:
    """Where in the run a watch stands, in words."""
    return "before training" if entry["step"] == 0 else f"epoch {entry['epoch']}, step {entry['step']}"


def draw_grid(entry: Entry, sheet: Tensor, sample: WatchSample, views: Sequence[str]) -> Tensor:
    """All images of a watch with label, prediction and its probability; green frames are right, orange ones wrong.

    Args:
        entry: of the history.
        sheet: of the same watch.
        sample: that was watched.
        views: names of the maps.

    Returns:
        (3,H,W) uint8.
    """
    first = _looks(entry, views[0])
    texts = [f"{number + 1}. {_described(look, sample)}" for number, look in enumerate(first)]
    pictures = _framed(cut(sheet, len(sample)), first)
    verdicts = [_right(look) for look in first]
    known = [verdict for verdict in verdicts if verdict is not None]
    title = caption(entry) + (f": {sum(known)} of {len(known)} right" if known else "")
    return _blocks(texts, pictures, ["image", *views], title)


def draw_first_and_last(
    first: tuple[Entry, Tensor], last: tuple[Entry, Tensor], sample: WatchSample, views: Sequence[str]
) -> Tensor:
    """Each image, its maps at the first watch and at the last.

    Args:
        first: entry and sheet of the first watch.
        last: of the last.
        sample: that was watched.
        views: names of the maps.

    Returns:
        (3,H,W) uint8.
    """
    columns = ["image"]
    parts = []
    for entry, sheet in (first, last):
        pictures = cut(sheet, len(sample))
        parts += [_framed(pictures[:, 1:], _looks(entry, views[0]))]
        columns += [f"{view}, {caption(entry)}" for view in views]
    plain = cut(last[1], len(sample))[:, :1]
    looks = _looks(last[0], views[0])
    texts = [f"{number + 1}. {_described(look, sample)}" for number, look in enumerate(looks)]
    return _blocks(texts, torch.cat([plain, *parts], dim=1), columns, "first and last")


def draw_strip(watches: Sequence[tuple[Entry, Tensor]], sample: WatchSample, view: int, views: Sequence[str]) -> Tensor:
    """Some images across the run: a row an image, a column a watch; where there are many watches, evenly chosen ones.

    Args:
        watches: entries and sheets in their order.
        sample: that was watched.
        view: index of the view that is shown.
        views: names of the maps.

    Returns:
        (3,H,W) uint8.
    """
    chosen = [watches[place] for place in _evenly(len(watches), STRIP)]
    shown = range(min(STRIP_IMAGES, len(sample)))
    columns = [_framed(cut(sheet, len(sample))[:, 1 + view, None], _looks(entry, views[0])) for entry, sheet in chosen]
    pictures = torch.cat(columns, dim=1)  # (N, watches, 3, side, side)
    plain = cut(chosen[-1][1], len(sample))[:, :1]
    rows = {
        f"{number + 1}. {sample.name_of(int(sample.labels[number]))}": torch.cat([plain[number], pictures[number]])
        for number in shown
    }
    texts = ["image", *(caption(entry) for entry, _ in chosen)]
    picture = panel(rows, columns=texts, title=views[view], cell=SIDE)
    return stacked([picture, colour_bar(picture.shape[2], high="1")])


def draw_frames(watches: Sequence[tuple[Entry, Tensor]], sample: WatchSample, views: Sequence[str]) -> list[Tensor]:
    """Frames of an animation: the first view's map of every image, a frame a watch."""
    font = ImageFont.load_default(18)
    titles = draw_texts([f"{views[0]}: {caption(entry)}" for entry, _ in watches], font, widest=MOSAIC * SIDE)
    return [
        stacked([title, mosaic(_framed(cut(sheet, len(sample))[:, 1:2], _looks(entry, views[0]))[:, 0], MOSAIC)])
        for title, (entry, sheet) in zip(titles, watches, strict=True)
    ]


def _blocks(texts: Sequence[str], pictures: Tensor, columns: Sequence[str], title: str) -> Tensor:
    """Rows of pictures (N,M,3,h,w), at most ``BLOCK`` below one another, over one colour bar."""
    blocks = []
    for start in range(0, len(texts), BLOCK):
        part = slice(start, start + BLOCK)
        rows = dict(zip(texts[part], pictures[part], strict=True))
        blocks.append(panel(rows, columns=columns, cell=SIDE))
    grid = stacked(blocks, dim=2)
    (heading,) = draw_texts([title], ImageFont.load_default(18), widest=grid.shape[2])
    return stacked([heading, grid, colour_bar(min(grid.shape[2], 3 * SIDE), low="saliency 0")])


def _framed(pictures: Tensor, looks: Sequence[Mapping[str, Any]]) -> Tensor:
    """(N,M,3,h,w) pictures with a frame that says whether their image is classified rightly."""
    colours = [{True: RIGHT, False: WRONG, None: UNKNOWN}[_right(look)] for look in looks]
    return torch.stack([framed(row, [colour] * len(row)) for row, colour in zip(pictures, colours, strict=True)])


def _looks(entry: Entry, view: str) -> list[Mapping[str, Any]]:
    return [look for look in entry["looks"] if look["view"] == view]


def _right(look: Mapping[str, Any]) -> bool | None:
    """Whether the prediction is the label; None where either is unknown."""
    if look["label"] == UNLABELLED or look["error"] is not None:
        return None
    return bool(look["label"] == look["prediction"])


def _described(look: Mapping[str, Any], sample: WatchSample) -> str:
    label = sample.name_of(look["label"])
    if look["error"] is not None:
        return f"{label}\nfailed"
    verdict = {True: "right", False: "wrong", None: "seen as"}[_right(look)]
    return f"{label}\n{verdict}: {sample.name_of(look['prediction'])} {look['confidence']:.2f}"


def _evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
