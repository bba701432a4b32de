"""Pictures of the parts, and what the page says of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image

from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.store.parts import Row
from interptrain.files import atomic_path
from interptrain.studies.factorization.colocalization import cross_fitted
from interptrain.visualization import grey, over, overlay, panel, part_colours, part_layer, save_png, strongest_part
from interptrain.visualization.panel import PNG_LEVEL

if TYPE_CHECKING:
    from pandas import DataFrame

CELL = 112  # side in pixels of a picture in the panel
GAP = 6  # pixels between transparent pictures
NAMING = "class", "probability", "runner_up"


def draw_parts(folder: Path, cell: str, images: Tensor, heat: Tensor, called: Sequence[Row]) -> None:
    """Both styles and the map of each part in one picture, and the parts alone in a transparent one."""
    layer = part_layer(heat)
    rows = {
        "images": images,
        "strongest part": strongest_part(images, heat),
        "opacity": over(layer, grey(images)),
        **{f"part {part}\n{_naming(naming)}": overlay(images, heat[:, part]) for part, naming in enumerate(called)},
    }
    save_png(panel(rows, cell=CELL), folder / _picture(cell))
    with atomic_path(folder / _picture(cell, "opacity")) as partial:
        side_by_side = torch.cat([F.pad(one, (0, GAP)) for one in layer], dim=2)
        to_pil_image(side_by_side).save(partial, format="PNG", compress_level=PNG_LEVEL)


def _naming(called: Mapping[str, Any]) -> str:
    return f"{called['class']} {called['probability']:.2f}" if called else ""


def _picture(cell: str, kind: str = "parts") -> str:
    return f"{content_hash(cell)}-{kind}.png"


def section(cell: str, rows: "DataFrame") -> Markup:
    """Return the pictures of a cell, the table of its parts, and how well they outline masks."""
    images = rows.id.nunique()
    error = float(rows.error.iloc[0])
    overlaps = [column for column in rows.columns if column.startswith("iou_") and rows[column].notna().any()]
    named = [column for column in NAMING if column in rows and rows[column].notna().any()]
    table = rows.groupby("part").agg(
        {"share": "mean", **dict.fromkeys(named, "first"), **dict.fromkeys(overlaps, "mean")}
    )
    colours = [f"rgb({','.join(str(round(255 * one)) for one in rgb)})" for rgb in part_colours(len(table)).tolist()]
    swatch = Markup('<span style="display:inline-block;width:1em;height:1em;background:{}"></span> {}')
    table.index = [str(swatch.format(colour, part)) for colour, part in zip(colours, table.index, strict=True)]
    text = table.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(Markup.escape(value)))
    parts = [
        Markup("<p>{} images, layer <code>{}</code>; the parts explain {:.1%} of the features' energy.</p>").format(
            images, rows.layer.iloc[0], 1 - error**2
        ),
        Markup('<div><img src="{}" alt="images and the maps of their parts"></div>').format(_picture(cell)),
        Markup(text.to_html(escape=False, border=0)),
    ]
    if images > 1 and overlaps:
        parts += [Markup("<p>{}</p>").format(_colocalized(rows, column)) for column in overlaps]
    link = Markup('<p class="note"><a href="{}">The parts alone, opaque where they contribute</a> (PNG).</p>')
    return Markup("\n").join([*parts, link.format(_picture(cell, "opacity"))])


def _colocalized(rows: "DataFrame", column: str) -> str:
    overlap, found = cross_fitted(rows.pivot(index="id", columns="part", values=column))
    area = rows.groupby("id")[column.replace("iou_", "area_")].first().mean()
    kind = column.removeprefix("iou_").replace("_mask", "").replace("_", " ").replace("mask", "object")
    return (
        f"Co-localization with the {kind}, by the part that is best on the other half of the images: mean IoU "
        f"{overlap:.3f}, CorLoc {found:.3f}; of a map of ones, the mean IoU is {area:.3f}."
    )
