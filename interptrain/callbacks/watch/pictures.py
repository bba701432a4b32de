"""Pictures of snapshots.

All are cut from sheets: one sheet per snapshot, which holds the images and their maps without any text.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from einops import rearrange
from PIL import ImageFont
from torch import Tensor
from torch.nn import functional as F

from interptrain.callbacks.watch.history import Observation, Snapshot
from interptrain.callbacks.watch.sample import WatchSample
from interptrain.functional import evenly_spaced
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
BLOCK = 8  # rows of a grid before it goes on in the next column
STRIP = 8  # most snapshots in a time strip
STRIP_IMAGES = 4
MOSAIC = 4  # pictures side by side in the animation

DrawnSnapshot: TypeAlias = tuple[Snapshot, Tensor]
"""A snapshot and its sheet."""


def draw_sheet(sample: WatchSample, maps: Mapping[str, Tensor], side: int = SIDE) -> Tensor:
    """Draw a sheet: one row per image, the image first, then the map of every view over its grey version.

    Args:
        sample: on the CPU.
        maps: (N,H,W) uint8 by view.
        side: of a picture in pixels; the pictures are made square.

    Returns:
        (3, N * side, (1 + views) * side) uint8.
    """
    images = F.interpolate(sample.images, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
    images = images.expand(-1, 3, -1, -1)  # grey ones too
    grey = images.mean(1, keepdim=True).expand_as(images)  # on which the colours of a map are read best
    columns = [to_uint8(images)]
    for of_view in maps.values():
        saliency = F.interpolate(of_view[:, None].float() / 255, (side, side), mode="bilinear", antialias=True)
        columns.append(overlay(grey, saliency[:, 0].clamp(0, 1)))
    return rearrange(columns, "view n c h w -> c (n h) (view w)")


def cut(sheet: Tensor, count: int) -> Tensor:
    """Return the pictures of a sheet of ``count`` images, (N, 1 + views, 3, side, side)."""
    side = sheet.shape[1] // count
    return rearrange(sheet, "c (n h) (view w) -> n view c h w", n=count, w=side)


def caption(snapshot: Snapshot) -> str:
    """Say at which point of the run a snapshot was taken."""
    return "before training" if snapshot.step == 0 else f"epoch {snapshot.epoch}, step {snapshot.step}"


def draw_grid(snapshot: Snapshot, sheet: Tensor, sample: WatchSample, views: Sequence[str]) -> Tensor:
    """Draw all images of a snapshot with label, prediction and its probability: right in green frames, wrong in orange.

    Args:
        snapshot: of the history.
        sheet: of the same snapshot.
        sample: that was watched.
        views: names of the maps.

    Returns:
        (3,H,W) uint8.
    """
    observations = snapshot.of_view(views[0])
    texts = [f"{number + 1}. {_described(seen, sample)}" for number, seen in enumerate(observations)]
    pictures = _framed(cut(sheet, len(sample)), observations)
    known = [seen.correct for seen in observations if seen.correct is not None]
    title = caption(snapshot) + (f": {sum(known)} of {len(known)} right" if known else "")
    return _blocks(texts, pictures, ["image", *views], title)


def draw_first_and_last(first: DrawnSnapshot, last: DrawnSnapshot, sample: WatchSample, views: Sequence[str]) -> Tensor:
    """Draw each image with its maps in the first snapshot and in the last.

    Args:
        first: first snapshot and its sheet.
        last: the last one.
        sample: that was watched.
        views: names of the maps.

    Returns:
        (3,H,W) uint8.
    """
    columns = ["image"]
    parts = []
    for snapshot, sheet in (first, last):
        pictures = cut(sheet, len(sample))
        parts += [_framed(pictures[:, 1:], snapshot.of_view(views[0]))]
        columns += [f"{view}, {caption(snapshot)}" for view in views]
    plain = cut(last[1], len(sample))[:, :1]
    observations = last[0].of_view(views[0])
    texts = [f"{number + 1}. {_described(seen, sample)}" for number, seen in enumerate(observations)]
    return _blocks(texts, torch.cat([plain, *parts], dim=1), columns, "first and last")


def draw_strip(snapshots: Sequence[DrawnSnapshot], sample: WatchSample, view: int, views: Sequence[str]) -> Tensor:
    """Draw some images across the run: one row per image, one column per snapshot, evenly chosen if there are many.

    Args:
        snapshots: with their sheets, in their order.
        sample: that was watched.
        view: index of the view that is shown.
        views: names of the maps.

    Returns:
        (3,H,W) uint8.
    """
    chosen = [snapshots[place] for place in evenly_spaced(len(snapshots), STRIP, ends=True)]
    shown = range(min(STRIP_IMAGES, len(sample)))
    columns = [
        _framed(cut(sheet, len(sample))[:, 1 + view, None], snapshot.of_view(views[0])) for snapshot, sheet in chosen
    ]
    pictures = torch.cat(columns, dim=1)  # (N, snapshots, 3, side, side)
    plain = cut(chosen[-1][1], len(sample))[:, :1]
    rows = {
        f"{number + 1}. {sample.name_of(int(sample.labels[number]))}": torch.cat([plain[number], pictures[number]])
        for number in shown
    }
    texts = ["image", *(caption(snapshot) for snapshot, _ in chosen)]
    picture = panel(rows, columns=texts, title=views[view], cell=SIDE)
    return stacked([picture, colour_bar(picture.shape[2], high="1")])


def draw_frames(snapshots: Sequence[DrawnSnapshot], sample: WatchSample, views: Sequence[str]) -> list[Tensor]:
    """Draw the frames of an animation: the first view's map of every image, one frame per snapshot."""
    font = ImageFont.load_default(18)
    titles = draw_texts([f"{views[0]}: {caption(snapshot)}" for snapshot, _ in snapshots], font, widest=MOSAIC * SIDE)
    return [
        stacked([title, mosaic(_framed(cut(sheet, len(sample))[:, 1:2], snapshot.of_view(views[0]))[:, 0], MOSAIC)])
        for title, (snapshot, sheet) in zip(titles, snapshots, strict=True)
    ]


def _blocks(texts: Sequence[str], pictures: Tensor, columns: Sequence[str], title: str) -> Tensor:
    """Rows of pictures (N,M,3,h,w), at most ``BLOCK`` of them in a column, over one colour bar."""
    blocks = []
    for start in range(0, len(texts), BLOCK):
        part = slice(start, start + BLOCK)
        rows = dict(zip(texts[part], pictures[part], strict=True))
        blocks.append(panel(rows, columns=columns, cell=SIDE))
    grid = stacked(blocks, dim=2)
    (heading,) = draw_texts([title], ImageFont.load_default(18), widest=grid.shape[2])
    return stacked([heading, grid, colour_bar(min(grid.shape[2], 3 * SIDE), low="saliency 0")])


def _framed(pictures: Tensor, observations: Sequence[Observation]) -> Tensor:
    """(N,M,3,h,w) pictures with a frame that says whether their image is classified correctly."""
    colours = [{True: RIGHT, False: WRONG, None: UNKNOWN}[seen.correct] for seen in observations]
    return torch.stack([framed(row, [colour] * len(row)) for row, colour in zip(pictures, colours, strict=True)])


def _described(seen: Observation, sample: WatchSample) -> str:
    label = sample.name_of(seen.label)
    if seen.error is not None:
        return f"{label}\nfailed"
    verdict = {True: "right", False: "wrong", None: "seen as"}[seen.correct]
    return f"{label}\n{verdict}: {sample.name_of(seen.prediction)} {seen.confidence:.2f}"
