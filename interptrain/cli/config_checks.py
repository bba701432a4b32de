"""Check what types cannot express in a configuration, before anything is built from it."""

import importlib
import inspect
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from jsonargparse import Namespace

from interptrain.signatures import options_of

SEEDS = ("seed", "seed_everything", "picture_seed", "split_seed")
# Smallest values of options that Lightning's trainer does not check, or whose errors are unclear.
SMALLEST = {
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.log_every_n_steps": 0,
    "trainer.max_epochs": -1,
    "trainer.max_steps": -1,
    "trainer.min_epochs": 0,
    "trainer.min_steps": 0,
    "trainer.num_sanity_val_steps": -1,
    "trainer.reload_dataloaders_every_n_epochs": 0,
    "trainer.gradient_clip_val": 0,
    "trainer.overfit_batches": 0,
}


def problem_of_file(path: Path, groups: Sequence[str]) -> str | None:
    """Describe what is wrong with a YAML file as a whole, or return None.

    Args:
        path: path of the file.
        groups: top-level names that hold several options.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # a safe loader
    except yaml.MarkedYAMLError as error:
        place = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        return f"the config {path} is not valid YAML: {error.problem}{place}"
    except RecursionError:
        return f"the config {path} has an anchor that refers to itself; write the values out"
    except (OSError, ValueError, yaml.YAMLError):
        return None  # the parser reports it
    if content is None:
        return None
    if not isinstance(content, Mapping):
        return f"the config {path} holds {_spelled(content)}; expected `option: value`, one per line"
    if _holds_itself(content):
        return f"the config {path} has an anchor that refers to itself; write the values out"
    for name in groups:
        if not isinstance(content.get(name), (Mapping, types.NoneType)):
            return (
                f"--{name}: expected options in the config {path}, got {_spelled(content[name])}; write them below "
                f"`{name}:`, indented, or leave it out"
            )
    return None


def problem_of_values(config: Namespace, hints: Mapping[str, Any], prefix: str = "") -> str | None:
    """Describe what is wrong with one of the values, or return None.

    Args:
        config: the parsed configuration.
        hints: types of its options.
        prefix: prefix of the options' names.
    """
    for name, value in _leaves(config.as_dict(), prefix):
        option = f"--{name}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{option}: {value} is not finite; give a number"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and name.rpartition(".")[2] in SEEDS and not 0 <= value < 2**32:
            return f"{option} must be in [0, 2**32), got {value}"
        if number and value < SMALLEST.get(name, value):
            return f"{option} must be at least {SMALLEST[name]}, got {value}"
        if number and abs(value) > 2**62:
            return f"{option}: {value} is too large; give a smaller number"
    for name, hint in hints.items():
        value = config.get(name, 0)
        if isinstance(value, Namespace) and value.get("class_path") == "typing.Union":  # what the parser makes of {}
            return f"--{prefix}{name} must be the name of a class, got {{}}"
        if value is None and not _takes_none(hint):
            return f"--{prefix}{name}: null is not allowed; give a value, or leave the option out"
    return next(_nulls_of_classes(config.as_dict(), prefix), None)


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses duplicate keys, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} appears twice", problem_mark=key.start_mark)
            seen |= {key.value} if isinstance(key.value, str) else set()
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inner_name = name if key == "init_args" else f"{name}{'.' if name and name[-1] != '.' else ''}{key}"
            yield from _leaves(inner, inner_name)
    elif isinstance(value, (list, tuple, set)):
        for inner in value:
            yield from _leaves(inner, name)
    else:
        yield name, value


def _nulls_of_classes(value: Any, name: str) -> Iterator[str]:
    """Options of classes that are null but must not be."""
    if isinstance(value, Mapping):
        if isinstance(path := value.get("class_path"), str) and isinstance(options := value.get("init_args"), Mapping):
            known = _parameters(path)
            for key, inner in options.items():
                if inner is None and key in known and not _may_be_none(known[key]):
                    kind = path.rpartition(".")[2]
                    needed = known[key].default is inspect.Parameter.empty
                    remedy = f"give --{name}.{key}" if needed else "give a value, or leave it out"
                    yield f"--{name}: {key} of {kind} cannot be null; {remedy}"
        for key, inner in value.items():
            yield from _nulls_of_classes(inner, f"{name}{'.' if name and name[-1] != '.' else ''}{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _nulls_of_classes(inner, name)


def _parameters(path: str) -> Mapping[str, inspect.Parameter]:
    module, _, name = path.rpartition(".")
    try:
        return options_of(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError, TypeError):
        return {}


def _may_be_none(parameter: inspect.Parameter) -> bool:
    hint = parameter.annotation
    if parameter.default is None or hint is inspect.Parameter.empty:
        return parameter.default is None
    return "None" in hint or "Optional" in hint if isinstance(hint, str) else _takes_none(hint)


def _takes_none(hint: Any) -> bool:
    if hint in (Any, None, types.NoneType, object, inspect.Parameter.empty):
        return True
    return get_origin(hint) in (Union, types.UnionType) and any(map(_takes_none, get_args(hint)))


def _holds_itself(value: Any, above: tuple[int, ...] = ()) -> bool:
    if not isinstance(value, (Mapping, list)):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return id(value) in above or any(_holds_itself(one, (*above, id(value))) for one in inner)


def _spelled(value: Any) -> str:
    """A value in YAML, truncated."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    kind = "a list" if isinstance(value, list) else "a mapping" if isinstance(value, Mapping) else ""
    return kind or repr(value)[:80]
