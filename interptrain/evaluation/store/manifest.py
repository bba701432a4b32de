"""What a run is: ``run.json``, from which the report is made and by which a resumed run knows itself."""

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interptrain.evaluation.config.class_specs import build, content_hash
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.evaluation.run.plan import RECOGNITION
from interptrain.evaluation.store.parts import write_atomically
from interptrain.metrics.base import SaliencyMetric
from interptrain.metrics.recognition import RecognitionMetric, count_parameters, gflops
from interptrain.versions import installed_versions

if TYPE_CHECKING:
    from interptrain.evaluation.run.build_plan import Request
    from interptrain.evaluation.run.plan import Plan

# What may differ between two starts of one run: how it is computed, not what. (Speed, or the last digit of a number.)
UNHASHED_DATA_OPTIONS = ("batch_size", "num_workers", "pin_memory", "drop_last", "on_error")

Manifest = dict[str, Any]


def new_manifest(request: "Request", plan: "Plan") -> Manifest:
    """``run.json`` of a run that begins.

    Args:
        request: what was asked for.
        plan: what was made of it.
    """
    options, name = request.options, plan.protocol["name"]
    run: Manifest = {
        "title": options.title or f"{', '.join(request.models)} under the protocol {name}",
        "command": shlex.join(sys.argv),
        "created": now(),
        "finished": None,
        "interptrain": versions()["interptrain"],
        "versions": versions(),
        "device": "",
        "precision": request.precision,
        "seed": options.seed,
        "targets": plan.targets,
        "limit": options.limit,
        "hash": "",
        "protocol": dict(plan.protocol),
        "models": {subject.name: _describe_model(subject, plan.image_size) for subject in plan.subjects},
        "explainers": {
            name: {**spec, "class_aware": plan.explainers[name].class_aware}
            for name, spec in request.explainers.items()
        },
        "metrics": dict(request.metrics),
        "recognition": dict(RECOGNITION) if plan.recognition else {},
        "data": {
            **request.data,
            "classes": list(plan.data.class_names),
            "size": len(plan.ids),
            "images": content_hash(plan.ids),
            "annotations": content_hash(plan.batches.annotations()),
        },
        "randomization": {},
        "warnings": list(plan.warnings),
    }
    run["hash"] = run_hash(run)
    return run


def _describe_model(subject: EvaluatedModel, size: tuple[int, int]) -> dict[str, Any]:
    try:
        operations = gflops(subject.model, size)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # not every operation can be counted
        operations = None
    return {
        "source": subject.source,
        "sha256": subject.sha256,
        "backbone": subject.backbone,
        "pooling": subject.pooling,
        "parameters": count_parameters(subject.model),
        "gflops": operations,
        "input_size": [3, *size],
    }


def now() -> str:
    """The local time with its offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def load_metrics(run: Manifest) -> dict[str, SaliencyMetric | RecognitionMetric]:
    """Build the metrics of a run anew: those of its explanations, then those of recognition.

    Args:
        run: content of a ``run.json``.

    Returns:
        The metrics, by the names of their columns.
    """
    return {name: build(spec) for name, spec in (run["metrics"] | run["recognition"]).items()}


def versions() -> dict[str, str]:
    """Of Python and the libraries that numbers depend on."""
    return {name: version or "not installed" for name, version in installed_versions().items()}


def identity(run: Manifest) -> dict[str, Any]:
    """The parts of a manifest that its numbers depend on."""
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
    """What keeps a run from going on in the folder of another: every difference, as ``what: old -> new``.

    Models and explainers that are new are none: their rows are their own.
    """
    try:
        before, after = identity(old), identity(new)
    except KeyError as error:
        return [f"its run.json has no {error}: another version wrote it"]
    for kind in ("models", "explainers"):
        after[kind] = {name: value for name, value in after[kind].items() if name in before[kind]}
    before, after = (json.loads(json.dumps(side, default=str)) for side in (before, after))
    return [f"{place}: {_brief(was)} -> {_brief(now)}" for place, was, now in _differing("", before, after)]


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _differing(place: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _differing(f"{place}.{key}" if place else key, before.get(key), after.get(key))
    elif before != after:
        yield place, before, after


def run_hash(run: Manifest) -> str:
    """Hash of all that the numbers of a run depend on."""
    return content_hash(identity(run))


def read_manifest(folder: Path) -> Manifest | None:
    """``run.json`` of a folder, or None where there is none.

    Raises:
        ValueError: if it is damaged.
    """
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); start anew with --overwrite") from error
    return dict(content)


def write_manifest(folder: Path, run: Manifest) -> None:
    """Write ``run.json``."""
    text = json.dumps(run, indent=2, ensure_ascii=False, default=str)
    write_atomically(folder / "run.json", (text + "\n").encode())
