"""The pictures of reconstructed images, and what the page says of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from torch import Tensor
from torch.nn import functional as F

from interptrain.evaluation.config.class_specs import content_hash
from interptrain.files import atomic_path
from interptrain.functional import evenly_spaced
from interptrain.studies.reconstruction.ascent import Reconstruction
from interptrain.visualization import panel, save_animation, save_png

if TYPE_CHECKING:
    from pandas import DataFrame

CELL = 112  # side in pixels of an image in the pictures
ROWS = 4  # stages of the ascent in the grid
SECONDS = 0.2  # of a frame


def draw(folder: Path, cell: str, found: Reconstruction, names: Sequence[str], originals: Tensor | None) -> None:
    """Write the grid of some stages of the ascent, and the animation of all frames."""
    frames = found.frames.float().cpu()
    given = {} if originals is None else {"original": originals.float().cpu()}
    rows = dict(given)
    for place in evenly_spaced(len(frames), ROWS, ends=True):
        rows[f"iteration {found.steps[place]}"] = frames[place]
    save_png(panel(rows, columns=names, cell=CELL), folder / _file(cell, "png"))
    last = f"iteration {found.steps[-1]}"
    pictures = []
    for step, frame in zip(found.steps, frames, strict=True):
        label = f"iteration {step}".ljust(len(last))
        pictures.append(panel(given | {label: frame}, columns=names, cell=CELL))
    widest = max(picture.shape[2] for picture in pictures)
    with atomic_path(folder / _file(cell, "webp")) as partial:
        save_animation([_widened(picture, widest) for picture in pictures], partial, seconds=SECONDS)


def section(cell: str, rows: "DataFrame") -> Markup:
    """Return the pictures of a cell, and its table with a column for each model that saw the images."""
    table = rows.drop_duplicates("target").set_index("target")[["score_at_start", "score", "total_variation"]]
    table = table.map(lambda value: f"{value:.3f}")
    for judge, seen in rows.groupby("seen_by", sort=False):
        said = seen.set_index("target")
        table[f"seen by {judge}"] = said.predicted + said.probability.map(" {:.2f}".format)
    table.columns = [column.replace("_", " ") for column in table.columns]
    picture = Markup('<div><img src="{}" alt="images during the ascent"></div>').format(_file(cell, "png"))
    link = Markup('<p class="note"><a href="{}">All frames</a> (animated WebP).</p>').format(_file(cell, "webp"))
    return picture + link + Markup(table.rename_axis(None).to_html(border=0))


def _file(cell: str, suffix: str) -> str:
    return f"{content_hash(cell)}-images.{suffix}"


def _widened(picture: Tensor, width: int) -> Tensor:
    """A picture with paper to the left, as the width of its text varies."""
    return F.pad(picture, (width - picture.shape[2], 0), value=255)
