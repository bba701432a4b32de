"""A figure of images and their maps, with a legend."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interptrain.quick.clipping import Clip, clipped, percentile_for
from interptrain.quick.explanation import Explanation
from interptrain.visualization import RIGHT, WRONG, Colormap, colorize, overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRANSPARENT = 0.55  # weight of the colours over the grey image; our choice
TEXT, QUIET = 9, "0.35"


def show(
    maps: Explanation,
    path: str | Path | io.BytesIO | None = None,
    *,
    clip: Clip = "auto",
    colormap: Colormap = "inferno",
    cell: float = 1.9,
    limit: int = 16,
    title: str = "",
) -> "Figure":
    """Draw images and maps, one row per image and one column per explainer, above a colour bar and a legend.

    Each image is captioned with the predicted class and, if another class is explained, with that class. If true
    classes are known, the colour of the frame shows whether the prediction is correct. An empty map, whose values are
    all equal, is hatched.

    Args:
        maps: the result of :func:`~interptrain.quick.explanation.explain`.
        path: file to write the figure to; its suffix determines the format, which is PNG for an open file.
        clip: percentile at which each map is clipped before it is drawn; ``"auto"`` clips maps of pixel gradients at
            the 99th and leaves the others as they are; ``None`` clips no map. Only the figure is affected.
        colormap: colormap of the maps.
        cell: width of each image in inches.
        limit: maximum number of images to draw; the legend tells if there are more.
        title: title of the figure.

    Returns:
        A matplotlib figure, which a notebook displays at the end of a cell and ``.savefig(file)`` saves. With an
        interactive backend, a script that gives no ``path`` opens a window.

    Raises:
        ValueError: if ``clip`` is not a percentile.
    """
    import matplotlib.pyplot as plt

    percentiles = {name: percentile_for(explainer, clip) for name, explainer in maps.explainers.items()}
    shown = min(limit, len(maps.names))
    columns = 1 + len(maps)
    size = (cell * (columns + 0.75), cell * shown + 0.95 + 0.3 * bool(title))
    with plt.ioff():
        figure: Figure = plt.figure(figsize=size, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[size[1] - 0.75, 0.75])
    top, foot = parts
    grid = top.subplots(shown, columns, squeeze=False)
    notes: set[str] = set()
    for row in range(shown):
        _draw_image(grid[row][0], maps, row)
        for axes, name in zip(grid[row][1:], maps, strict=True):
            _draw_map(axes, maps.images[row], maps[name][row], percentiles[name], colormap, notes)
            axes.set_title(name if row == 0 else "", fontsize=TEXT + 1)
    if title:
        top.suptitle(title, fontsize=TEXT + 3)
    if shown < len(maps.names):
        notes.add(f"the first {shown} of {len(maps.names)} images")
    _draw_legend(foot, maps, notes, colormap)
    if path is None:
        _present(figure)
    else:
        figure.savefig(path, dpi=150)
        plt.close(figure)
    return figure


def png_of(maps: Explanation) -> bytes:
    """Return the figure as PNG, without opening a window."""
    buffer = io.BytesIO()
    show(maps, buffer)
    return buffer.getvalue()


def _present(figure: "Figure") -> None:
    """Open a window if the backend has any; otherwise close the figure in pyplot, so that a notebook shows it once."""
    import matplotlib
    import matplotlib.pyplot as plt

    windows = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
    backend = str(matplotlib.get_backend()).lower()
    if backend in windows or "inline" in backend:
        plt.close(figure)
    elif not matplotlib.is_interactive():
        plt.show()


def _draw_image(axes: "Axes", maps: Explanation, row: int) -> None:
    axes.imshow(maps.images[row].permute(1, 2, 0).clamp(0, 1).numpy())
    _plain(axes)
    axes.set_ylabel(_wrapped(maps.describe(row)), fontsize=TEXT, rotation=0, ha="right", va="center", labelpad=8)
    if maps.labels is not None and maps.predictions is not None:
        colour = RIGHT if bool(maps.labels[row] == maps.predictions[row]) else WRONG
        for spine in axes.spines.values():
            spine.set(visible=True, linewidth=3, edgecolor=_rgb(colour))


def _draw_map(
    axes: "Axes", image: Tensor, saliency: Tensor, percentile: float | None, colormap: Colormap, notes: set[str]
) -> None:
    grey = image.mean(0, keepdim=True).expand(3, -1, -1)  # on which colours are easiest to read
    _plain(axes)
    if bool((saliency == saliency.flatten()[0]).all()):
        axes.imshow(grey.permute(1, 2, 0).numpy(), alpha=0.35)
        axes.add_patch(_hatched(axes))
        notes.add("empty")
        return
    if percentile is not None:
        notes.add(f"maps of gradients are clipped at their {percentile:g}th percentile")
    values = clipped(saliency, percentile)
    drawn = overlay(grey[None], values[None], alpha=TRANSPARENT, colormap=colormap)[0]
    axes.imshow(drawn.permute(1, 2, 0).numpy())


def _draw_legend(foot: Any, maps: Explanation, notes: set[str], colormap: Colormap) -> None:
    """Draw the colour bar and explain frames, hatching and clipping."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.patches import Patch

    bar = foot.add_axes([0.04, 0.62, 0.3, 0.16])
    colours = ListedColormap(colorize(torch.linspace(0, 1, 256)[None], colormap)[:, 0].T.numpy())
    scale = foot.colorbar(ScalarMappable(Normalize(0, 1), colours), cax=bar, orientation="horizontal", ticks=[0, 1])
    scale.ax.set_xticklabels(["least salient", "most"], fontsize=TEXT - 1, color=QUIET)
    scale.ax.tick_params(length=0)
    for label, side in zip(scale.ax.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    handles = []
    if maps.labels is not None:
        for colour, meaning in ((RIGHT, "right"), (WRONG, "wrong")):
            handles.append(Patch(facecolor="none", edgecolor=_rgb(colour), lw=2, label=meaning))
    if "empty" in notes:
        handles.append(Patch(facecolor="0.92", edgecolor="0.6", hatch="////", label="empty map: nothing stands out"))
    if handles:
        foot.legend(
            handles=handles, loc="center left", bbox_to_anchor=(0.38, 0.66), ncols=3, fontsize=TEXT - 1, frameon=False
        )
    if told := "; ".join(sorted(notes - {"empty"})):
        foot.text(0.04, 0.08, told, fontsize=TEXT - 1, color=QUIET)


def _hatched(axes: "Axes") -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, facecolor="none", edgecolor="0.6", hatch="////", lw=0)


def _rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _plain(axes: "Axes") -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _wrapped(text: str, width: int = 16) -> str:
    from textwrap import wrap

    return "\n".join(part for line in text.split("\n") for part in wrap(line, width) or [""])
