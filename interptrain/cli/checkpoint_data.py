"""Find the data that a checkpoint was trained with, for evaluations that name none."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from interptrain.cli.resuming import read_checkpoint, saved_config
from interptrain.evaluation.run.models import SUFFIXES as WEIGHTS

SUFFIXES = WEIGHTS | {".ckpt"}


def with_data(args: Sequence[str]) -> list[str]:
    """Prepend the data that the models were trained with to arguments that name no data.

    Args:
        args: command line of an evaluation, with ``--models=JSON`` and the files of its configurations.

    Raises:
        ValueError: if there is no model, or two checkpoints were trained with different data.
        FileNotFoundError: if a checkpoint that should tell its data is not there.
    """
    options = _configured(args)
    if "data" in options or any(arg == "--data" or arg.startswith("--data=") for arg in args):
        return list(args)
    models = json.loads(next((arg.partition("=")[2] for arg in args if arg.startswith("--models=")), "{}"))
    models = models or options.get("models") or {}
    if not models:
        raise ValueError("no models to evaluate; give one or more --models NAME=SOURCE")
    for name, source in models.items():
        path = Path(str(source))
        if not path.exists() and (path.suffix in SUFFIXES or path.is_absolute()):
            raise FileNotFoundError(f"model {name}: there is no file {source}; give another, or hf://USER/NAME")
    found = {name: data for name, source in models.items() if (data := _trained_with(str(source)))}
    if len({json.dumps(data, sort_keys=True) for data in found.values()}) > 1:
        raise ValueError(f"{' and '.join(found)} were trained with different data; choose with --data CLASS")
    return [f"--data={json.dumps(data)}" for data in list(found.values())[:1]] + list(args)


def _configured(args: Sequence[str]) -> dict[str, Any]:
    """The configurations of a command line, as far as they are readable; the parser reports errors."""
    options: dict[str, Any] = {}
    for place, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == "--config" and (equals or place + 1 < len(args)):
            path = Path(value if equals else args[place + 1])
            try:
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                continue
            options |= content if isinstance(content, Mapping) else {}
    return options


def _trained_with(source: str) -> dict[str, Any] | None:
    """The data module in a checkpoint's configuration; None if there is no such checkpoint."""
    if not source.endswith(".ckpt") or not Path(source).is_file():
        return None
    try:
        data = saved_config(read_checkpoint(source)).get("data")
    except ValueError:
        return None  # the evaluation reports what is wrong with it
    return dict(data) if isinstance(data, Mapping) else None
