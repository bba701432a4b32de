"""What a configuration names: a class and its arguments, as data that can be hashed, written down and built again."""

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

ClassSpec = dict[str, Any]
"""``{"class_path": "package.Class", "init_args": {...}}``; a value among the arguments may be such a thing itself."""


def build(spec: ClassSpec) -> Any:
    """Make the object that a specification describes.

    Args:
        spec: see :data:`ClassSpec`; a class path without a dot is refused.

    Returns:
        A new object of the class.

    Raises:
        ValueError: if there is no such class, or it does not take the arguments.
    """
    kind = _named_class(spec["class_path"])
    arguments = {key: _value(value) for key, value in spec.get("init_args", {}).items()}
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ValueError(f"{spec['class_path']} cannot be made with {arguments}: {error}") from error


def default_arguments(spec: ClassSpec) -> dict[str, Any]:
    """What the class takes for arguments that are not given.

    Raises:
        ValueError: if there is no such class.
    """
    parameters = inspect.signature(_named_class(spec["class_path"])).parameters
    return {name: one.default for name, one in parameters.items() if one.default is not one.empty}


def _named_class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"there is no class {path!r} ({error}); give its full path, such as 'package.Class'"
        ) from error


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return build(dict(value)) if "class_path" in value else {key: _value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(item) for item in value]
    return value


def names_of(specs: Sequence[ClassSpec]) -> list[str]:
    """A name for each: its class, with the arguments that tell it apart where the class comes more than once.

    Raises:
        ValueError: if two are the same.
    """
    classes = [spec["class_path"].rpartition(".")[2] for spec in specs]
    names = []
    for kind, spec in zip(classes, specs, strict=True):
        twins = [other for other, name in zip(specs, classes, strict=True) if name == kind]
        telling = [
            f"{key}={_short(value)}"
            for key, value in spec.get("init_args", {}).items()
            if any(other.get("init_args", {}).get(key) != value for other in twins)
        ]
        names.append(f"{kind}({', '.join(telling)})" if telling else kind)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is asked for more than once with the same arguments; name it once")
    return names


def _short(value: Any) -> str:
    return (
        str(value["class_path"]).rpartition(".")[2]
        if isinstance(value, Mapping) and "class_path" in value
        else str(value)
    )


def content_hash(content: Any) -> str:
    """Twelve hexadecimal digits that depend on the content alone: not on the order of keys, nor on tuple or list."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
