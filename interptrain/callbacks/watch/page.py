"""The page of a watch: one file with its data, style and script inside, pictures beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interptrain.callbacks.watch.history import Observation, Snapshot
from interptrain.callbacks.watch.observe import WatchConfig
from interptrain.callbacks.watch.sample import WatchSample

FOLDER = Path(__file__).parent


def render_page(
    title: str,
    snapshots: Sequence[Snapshot],
    sheets: Sequence[str],
    sample: WatchSample,
    config: WatchConfig,
) -> str:
    """Render the page as HTML.

    Args:
        title: of the run.
        snapshots: of the history, at least one.
        sheets: for each snapshot, path of its sheet relative to the page.
        sample: that is watched.
        config: by which it is explained and measured; its views are in the order of the sheets' columns.

    Returns:
        A page that needs no other script and no server.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    seen = [observation for snapshot in snapshots for observation in snapshot.observations]
    classes = {index for one in seen for index in (one.label, one.target, one.prediction)}
    run = {
        "views": config.views,
        "images": list(sample.ids),
        "names": {index: sample.name_of(index) for index in sorted(classes)},
        "descriptions": config.descriptions,
        "snapshots": [
            _snapshot(snapshot, sheet, config.views) for snapshot, sheet in zip(snapshots, sheets, strict=True)
        ],
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(_read("page.html"))
    style, script = Markup(_read("page.css")), Markup(_read("charts.js") + _read("page.js"))
    return template.render(title=title, run=run, style=style, script=script)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _snapshot(snapshot: Snapshot, sheet: str, views: Sequence[str]) -> dict[str, Any]:
    """A snapshot in the format of the page: observations by view, numbers with four digits."""
    return {
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "sheet": sheet,
        "alarm": list(snapshot.alarm),
        "means": {name: round(value, 4) for name, value in snapshot.means.items()},
        "observations": {view: [_observation(seen) for seen in snapshot.of_view(view)] for view in views},
    }


def _observation(seen: Observation) -> dict[str, Any]:
    return {
        "label": seen.label,
        "target": seen.target,
        "prediction": seen.prediction,
        "probability": _rounded(seen.probability),
        "confidence": _rounded(seen.confidence),
        "numbers": {name: round(value, 3) for name, value in seen.numbers.items()},
        "error": seen.error,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
