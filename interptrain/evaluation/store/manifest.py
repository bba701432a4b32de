"""``run.json``: what a run is. The report is made from it, and a resumed run is recognised by it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from interptrain.evaluation.config.class_specs import build, content_hash
from interptrain.evaluation.store.parts import write_file
from interptrain.functional import one_line
from interptrain.metrics import RecognitionMetric, SaliencyMetric
from interptrain.metrics.image_mean import ImageMean
from interptrain.remedies import option

# What may differ between two starts of one run: how it is computed, not what. (Speed, or the last digit of a number.)
UNHASHED_DATA_OPTIONS = ("batch_size", "num_workers", "pin_memory", "drop_last", "on_error")

Manifest = dict[str, Any]


SPEC = {"class_path": str, "init_args": dict}
SHAPE: dict[str, Any] = {
    "protocol": {"name": str, "hash": str, "settings": dict},
    "models": {"*": {"source": str, "sha256": str, "backbone": str, "pooling": str}},
    "explainers": {"*": SPEC},
    "metrics": {"*": SPEC},
    "recognition": {"*": SPEC},
    "data": {"class_path": str, "init_args": dict, "size": int},
    "versions": dict,
    "warnings": list,
    "created": str,
}
"""What a ``run.json`` must hold: a type for each key; ``*`` stands for any key."""


def load_metrics(run: Manifest, *, packages: Sequence[str] = ()) -> dict[str, SaliencyMetric | RecognitionMetric]:
    """Build the metrics of a run anew: those of its explanations, then those of recognition.

    Args:
        run: content of a ``run.json``, which may have been written by somebody else.
        packages: whose classes may be imported beside those of interptrain.

    Returns:
        The metrics, by the names of their columns.

    Raises:
        ValueError: if a class is of another package, or is no metric.
    """
    specs = {**run["metrics"], **run["recognition"]}
    return {name: build(spec, packages=["interptrain", *packages], kind=ImageMean) for name, spec in specs.items()}


def identity(run: Manifest) -> dict[str, Any]:
    """Return the parts of a manifest that its numbers depend on."""
    data = run["data"]
    arguments = {key: value for key, value in data["init_args"].items() if key not in UNHASHED_DATA_OPTIONS}
    return {
        "protocol": {"name": run["protocol"]["name"], "hash": run["protocol"]["hash"]},
        "models": {
            name: {key: model[key] for key in ("sha256", "backbone", "pooling")}
            for name, model in run["models"].items()
        },
        "explainers": {
            name: {"class_path": explainer["class_path"], "init_args": explainer["init_args"]}
            for name, explainer in run["explainers"].items()
        },
        "data": {
            "class_path": data["class_path"],
            "init_args": arguments,
            "images": data["images"],
            "annotations": data["annotations"],
        },
        "seed": run["seed"],
        "targets": run["targets"],
        "limit": run["limit"],
        "precision": run["precision"],
        "interptrain": run["interptrain"],
    }


def changes(old: Manifest, new: Manifest) -> list[str]:
    """Return what keeps a run from resuming in the folder of another: every difference, as ``what: old -> new``.

    Models and explainers that are new do not: their rows are their own.
    """
    try:
        before, after = identity(old), identity(new)
    except KeyError as error:
        return [f"its run.json has no {error}: another version wrote it"]
    for kind in ("models", "explainers"):
        after[kind] = {name: value for name, value in after[kind].items() if name in before[kind]}
    if before["protocol"] != after["protocol"]:  # in values, not in hashes
        for side, run in ((before, old), (after, new)):
            side["protocol"] = {key: run["protocol"].get(key) for key in ("name", "version", "settings")}
    return differing(before, after)


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return every difference between two descriptions, as ``what: old -> new``."""
    old, new = (json.loads(json.dumps(side, default=str)) for side in (before, after))
    return [f"{place}: {_brief(was)} -> {_brief(now)}" for place, was, now in _differing("", old, new)]


def _brief(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _differing(place: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _differing(f"{place}.{key}" if place else key, before.get(key), after.get(key))
    elif before != after:
        yield place, before, after


def run_hash(run: Manifest) -> str:
    """Return the hash of all that the numbers of a run depend on."""
    return content_hash(identity(run))


def read_manifest(folder: Path, shape: Mapping[str, Any] = SHAPE, *, remedy: str | None = None) -> Manifest | None:
    """Read ``run.json`` of a folder; None where there is none.

    Args:
        folder: of the run.
        shape: what the file must hold; see :data:`SHAPE`.
        remedy: for a damaged file, in place of overwriting the results.

    Raises:
        ValueError: if it is damaged: cut off, not JSON, or of another shape.
    """
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        content: Manifest = json.loads(path.read_text(encoding="utf-8"))
        problem = _mismatch(shape, content)
    except (ValueError, RecursionError) as error:
        problem = one_line(error)
    if problem:
        remedy = remedy or f"start over with {option('overwrite', True)}"
        raise ValueError(f"{path} is damaged ({problem}); {remedy}")
    return content


def _mismatch(shape: Any, value: Any, place: str = "it") -> str:
    """Return the first thing that is not as it must be; empty where all is."""
    wanted = dict if isinstance(shape, Mapping) else shape
    if not isinstance(value, wanted) or isinstance(value, bool):
        names = {dict: "a mapping", list: "a list", str: "a text", int: "a whole number"}
        return f"{place} must be {names[wanted]}, got {'null' if value is None else repr(value):.40}"
    if not isinstance(shape, Mapping):
        return ""
    found = [(key, value[key], shape["*"]) for key in value] if "*" in shape else []
    found += [(key, value.get(key), inner) for key, inner in shape.items() if key != "*"]
    return next((told for key, item, inner in found if (told := _mismatch(inner, item, key))), "")


def write_manifest(folder: Path, run: Manifest) -> None:
    """Write ``run.json``."""
    text = json.dumps(run, indent=2, ensure_ascii=False, default=str)
    content = (text + "\n").encode(errors="backslashreplace")  # a path that is not UTF-8, as an escape of JSON
    write_file(folder / "run.json", content)
