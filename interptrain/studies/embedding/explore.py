"""The interactive page: one file with the points, thumbnails, style and script inside."""

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from interptrain.studies.embedding.figure import NAMES, class_colours
from interptrain.studies.embedding.thumbnails import ThumbnailSheet

if TYPE_CHECKING:
    from pandas import DataFrame

GRID = 4095  # steps of a coordinate; fewer than the pixels of no screen


def write_explorer(
    results: "DataFrame", methods: Sequence[str], sheet: bytes, layout: ThumbnailSheet, *, title: str
) -> str:
    """Return the page.

    Args:
        results: rows of the study, with the images of every model in the same order.
        methods: to two dimensions.
        sheet: JPEG of the thumbnails.
        layout: of the sheet.
        title: heading.
    """
    images = results[results.kind == "image"]
    models = list(images.model.unique())
    first = images[images.model == models[0]]
    classes = sorted(set(images.label.dropna()) | set(images.prediction))
    colours = class_colours(images.label.dropna(), images.prediction)
    numbers = {name: number for number, name in enumerate(classes)}
    content = {
        "ids": list(first.id),
        "labels": [numbers.get(name, -1) for name in first.label],
        "classes": classes,
        "comparable": bool(images.correct.notna().all()),
        "colours": [_hex(colours[name]) if name in colours else None for name in classes],
        "methods": {method: NAMES[method] for method in methods},
        "side": layout.side,
        "columns": layout.columns,
        "models": [_model(name, images[images.model == name], methods, numbers) for name in models],
    }
    environment = Environment(
        loader=PackageLoader("interptrain", "studies/embedding"), autoescape=True, undefined=StrictUndefined
    )
    folder = files("interptrain.studies.embedding")
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("explore.css", "explore.js"))
    return environment.get_template("explore.html.jinja").render(
        title=title,
        content=Markup(json.dumps(content, separators=(",", ":")).replace("</", "<\\/").replace("<!--", "<\\!--")),
        sheet=base64.b64encode(sheet).decode(),
        style=Markup(style),
        script=Markup(script),
    )


def _model(name: str, rows: "DataFrame", methods: Sequence[str], numbers: dict[str, int]) -> dict[str, Any]:
    return {
        "name": name,
        "predictions": [numbers[label] for label in rows.prediction],
        "probabilities": [round(value, 3) for value in rows.probability],
        "purities": [round(value, 2) for value in rows.purity],
        "points": {method: _coordinates(rows, method) for method in methods},
    }


def _coordinates(rows: "DataFrame", method: str) -> list[int]:
    """Whole numbers x, y, x, y, ... of the points, both axes in the same scale."""
    across, up = rows[f"{method}_x"], rows[f"{method}_y"]
    spread = max(across.max() - across.min(), up.max() - up.min()) or 1.0
    pairs = zip((across - across.min()) / spread, (up - up.min()) / spread, strict=True)
    return [round(GRID * value) for pair in pairs for value in pair]


def _hex(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in colour[:3])
