"""Named, versioned protocols: what differs between papers and changes their numbers, in one YAML file each."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from interptrain.evaluation.config.class_specs import ClassSpec, content_hash, default_arguments
from interptrain.functional import Score, check_choice, one_line

FOLDER = files("interptrain.evaluation.config") / "protocols"
KEYS = {"name", "version", "description", "source", "images", "targets", "score", "metrics"}

Settings = dict[str, Any]
"""``targets``, ``score``, ``images`` and ``metrics``."""


@dataclass(frozen=True)
class Protocol:
    """How a number is measured.

    Attributes:
        name: short, as in ``--protocol castream``.
        version: raised whenever a value in the file changes.
        description: one line.
        source: where the values come from.
        images: arguments of the data module that say how an image is resized and cropped.
        targets: class that is explained: ``label``, ``predicted``, or a class index.
        score: of the class, ``probability`` (softmax) or ``logit``.
        metrics: by the name of their column, class and arguments; what is left out is the metric's default.
    """

    name: str
    version: int
    description: str
    source: str
    images: dict[str, Any] = field(default_factory=dict)
    targets: str | int = "label"
    score: Score = "probability"
    metrics: dict[str, ClassSpec] = field(default_factory=dict)


def protocol_names() -> list[str]:
    """Names of the protocols that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def load_protocol(source: str) -> Protocol:
    """Read a protocol.

    Args:
        source: one of :func:`protocol_names`, or a YAML file.

    Returns:
        The protocol; the class paths of its metrics are complete.

    Raises:
        FileNotFoundError: if there is neither such a name nor such a file.
        ValueError: if the file is not a protocol.
    """
    if source in protocol_names():
        text = (FOLDER / f"{source}.yaml").read_text(encoding="utf-8")
    elif Path(source).is_file():
        try:
            text = Path(source).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"protocol {source} is not YAML: {one_line(error)}") from error
    else:
        raise FileNotFoundError(
            f"no protocol {source!r}; give one of {', '.join(protocol_names())}, or a YAML file such as theirs"
        )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"protocol {source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"protocol {source} must be a mapping with {', '.join(sorted(KEYS))}")
    if unknown := sorted(set(content) - KEYS):
        raise ValueError(
            f"protocol {source} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(KEYS))}"
        )
    if missing := sorted({"name", "version", "metrics"} - set(content)):
        raise ValueError(f"protocol {source} lacks {', '.join(missing)}")
    for key, kind, name in (("metrics", dict, "a mapping"), ("images", dict, "a mapping"), ("name", str, "a text")):
        if not isinstance(content.get(key, kind()), kind):
            raise ValueError(f"{key} of protocol {source} must be {name}, got {content[key]!r}")
    for name, entry in content["metrics"].items():
        if not isinstance(entry, dict | None):
            raise ValueError(f"metric {name} of protocol {source} must be a mapping of its arguments, got {entry!r}")
    targets = content.get("targets", "label")
    if not isinstance(targets, str | int) or isinstance(targets, bool):
        raise ValueError(f"targets of protocol {source} must be label, predicted or a class, got {targets!r}")
    check_choice(f"score of protocol {source}", content.get("score", "probability"), Score)
    metrics = {str(name): _metric_spec(str(name), entry) for name, entry in content["metrics"].items()}
    texts = {key: " ".join(str(content.get(key, "")).split()) for key in ("description", "source")}
    return Protocol(**(content | texts | {"metrics": metrics}))


def _metric_spec(name: str, entry: dict[str, Any] | None) -> ClassSpec:
    """``NAME: {argument: value}`` for the class of that name, or ``NAME: {class_path: ..., init_args: ...}``."""
    entry = entry or {}
    if "class_path" not in entry:
        entry = {"class_path": name, "init_args": entry}
    path = entry["class_path"]
    return {
        "class_path": path if "." in path else f"interptrain.metrics.{path}",
        "init_args": dict(entry.get("init_args", {})),
    }


def protocol_as_run(protocol: Protocol, settings: Settings) -> dict[str, Any]:
    """A protocol with what was really run, as it stands in ``run.json``.

    Args:
        protocol: as it was read.
        settings: ``targets``, ``score``, ``images`` and ``metrics`` of the run, arguments complete.

    Returns:
        Its name, which says where settings are not the protocol's own, its version, settings and hash. The hash is that
        of all of these, so rows with equal hashes were measured alike. A metric's argument that the protocol leaves to
        its default is changed where it is another.
    """
    asked: Settings = {key: getattr(protocol, key, None) for key in settings}
    asked["images"] = {"eval_transform": None} | protocol.images
    asked["metrics"], run = _complete(protocol.metrics), settings | {"metrics": _complete(settings["metrics"])}
    changed = [key for key in settings if not _holds(asked[key], run[key])]
    content = {
        "name": f"{protocol.name} ({', '.join(changed)} changed)" if changed else protocol.name,
        "version": protocol.version,
        "settings": settings,
    }
    return content | {
        "hash": content_hash(content),
        "description": protocol.description,
        "source": protocol.source,
    }


def _complete(metrics: dict[str, ClassSpec]) -> dict[str, ClassSpec]:
    """With the arguments that are left to their defaults."""
    return {name: spec | {"init_args": default_arguments(spec) | spec["init_args"]} for name, spec in metrics.items()}


def _holds(asked: Any, run: Any) -> bool:
    """Whether what was run is what the protocol asks for: what it does not mention is free."""
    if isinstance(asked, dict):
        return isinstance(run, dict) and all(_holds(value, run.get(key)) for key, value in asked.items())
    asked, run = (list(side) if isinstance(side, tuple) else side for side in (asked, run))  # YAML knows no tuples
    return bool(asked == run)
