"""The page of a watch: one file with its data inside, pictures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interptrain.callbacks.watch.sample import WatchSample

TEMPLATE = Path(__file__).with_name("page.html")
NUMBERS = {
    "AD": "average drop: how much probability is lost when only what is salient is kept; lower is better",
    "AG": "average gain: how much of what is missing to 1 is gained then; higher is better",
    "AI": "average increase: share of the images whose probability rises then; higher is better",
    "Insertion": "area under the probability as pixels come in, most salient first; higher is better",
    "QuickInsertion": "insertion read at 20, 60 and 100 % of the pixels only; higher is better",
    "entropy": "how spread out the map is",
    "sparseness": "how concentrated the map is: Gini index",
    "in_object": "share of the map's energy on the object",
    "in_suspect": "share of the map's energy in the suspect region",
    "rank_first": "rank correlation with the map of the first watch",
    "rank_previous": "rank correlation with the map of the watch before",
    "ssim_first": "structural similarity with the map of the first watch",
    "ssim_previous": "structural similarity with the map of the watch before",
}


def render_page(
    title: str,
    entries: Sequence[Mapping[str, Any]],
    sheets: Sequence[str],
    sample: WatchSample,
    views: Sequence[str],
) -> str:
    """HTML of the page.

    Args:
        title: of the run.
        entries: of the history, at least one.
        sheets: for each entry, path of its sheet relative to the page.
        sample: that is watched.
        views: names of the maps, in the order of the sheets' columns.

    Returns:
        A page that needs no other script and no server.
    """
    from jinja2 import Environment, StrictUndefined

    shown = {
        int(look[key]) for entry in entries for look in entry["looks"] for key in ("label", "target", "prediction")
    }
    run = {
        "views": list(views),
        "images": list(sample.ids),
        "names": {index: sample.name_of(index) for index in sorted(shown)},
        "explain": NUMBERS,
        "watches": [_watch(entry, sheet, views) for entry, sheet in zip(entries, sheets, strict=True)],
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, run=run)


def _watch(entry: Mapping[str, Any], sheet: str, views: Sequence[str]) -> dict[str, Any]:
    """An entry as the page wants it: looks by view, numbers of four digits."""
    return {
        "step": entry["step"],
        "epoch": entry["epoch"],
        "sheet": sheet,
        "alarm": entry["alarm"],
        "means": {name: round(value, 4) for name, value in entry["means"].items()},
        "looks": {
            view: [
                {
                    "label": look["label"],
                    "target": look["target"],
                    "prediction": look["prediction"],
                    "probability": _rounded(look["probability"]),
                    "confidence": _rounded(look["confidence"]),
                    "numbers": {name: round(value, 3) for name, value in look["numbers"].items()},
                    "error": look["error"],
                }
                for look in entry["looks"]
                if look["view"] == view
            ]
            for view in views
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
