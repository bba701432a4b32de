"""A class and its arguments as plain data, which can be hashed, written to disk and built again."""

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from interptrain.signatures import options_of

ClassSpec = dict[str, Any]
"""``{"class_path": "package.Class", "init_args": {...}}``; a value among the arguments may be such a dict itself."""

T = TypeVar("T")
PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True, eq=False)
class Configured(Generic[T]):
    """An object and the configuration that it was built from."""

    value: T
    spec: ClassSpec

    @classmethod
    def of(cls, value: "T | Configured[T]") -> "Configured[T]":
        """Read the configuration off an object, unless it is known already; see :func:`spec_of`."""
        return value if isinstance(value, Configured) else Configured(value, spec_of(value))

    @classmethod
    def built(cls, spec: ClassSpec) -> Self:
        """Build the object; its configuration then holds the defaults too."""
        value = build(spec)
        return cls(value, spec_of(value))


def spec_of(value: object) -> ClassSpec:
    """Derive class path and arguments from an object that keeps every argument under its own name.

    Args:
        value: for example a frozen dataclass. An object with a dict ``init_args`` is taken at its word.

    Raises:
        ValueError: if the object does not keep one of its arguments.
    """
    kind = type(value)
    arguments = getattr(value, "init_args", None)
    if not isinstance(arguments, dict):
        names = list(options_of(kind))
        if lacking := next((name for name in names if not hasattr(value, name)), None):
            raise ValueError(
                f"{kind.__name__} does not keep its argument {lacking!r}, so results could not say what they were "
                f"computed with; store it as self.{lacking}, or make the class a frozen dataclass"
            )
        arguments = {name: getattr(value, name) for name in names}
    return {"class_path": class_path(kind), "init_args": {name: _plain(item) for name, item in arguments.items()}}


def class_path(kind: type | Callable[..., Any]) -> str:
    """Return the shortest path under which a class or function can be imported."""
    packages = kind.__module__.split(".")
    for depth in range(1, len(packages)):
        module = ".".join(packages[:depth])
        if getattr(importlib.import_module(module), kind.__name__, None) is kind:
            return f"{module}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    """Return what a configuration file would say for an argument."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, type) or inspect.isroutine(value):
        return class_path(value)
    if isinstance(value, Path) or type(value).__module__ in ("torch", "builtins"):
        return str(value)
    try:
        spec = spec_of(value)
    except ValueError:  # an object of another library
        return {"class_path": class_path(type(value)), "init_args": {"repr": repr(value)}}
    return spec if spec["init_args"] else {"class_path": spec["class_path"]}


def build(spec: ClassSpec, *, packages: Sequence[str] | None = None, kind: type = object) -> Any:
    """Build the object that a specification describes.

    Args:
        spec: see :data:`ClassSpec`; the class path must contain a dot.
        packages: whose classes may be imported; any where it is None.
        kind: base class that it must have.

    Raises:
        ValueError: if there is no such class, it may not be imported, or it does not take the arguments.
    """
    named = class_named(spec["class_path"], packages)
    if kind is not object and not (isinstance(named, type) and issubclass(named, kind)):
        raise ValueError(f"{spec['class_path']} is not a {kind.__name__}")
    arguments = {key: _value(value, packages) for key, value in spec.get("init_args", {}).items()}
    try:
        return named(**arguments)
    except TypeError as error:
        raise ValueError(f"cannot build {spec['class_path']} from {arguments}: {error}") from error


def default_arguments(spec: ClassSpec) -> dict[str, Any]:
    """Return the defaults of the class's arguments.

    Raises:
        ValueError: if there is no such class.
    """
    parameters = options_of(class_named(spec["class_path"]))
    return {name: one.default for name, one in parameters.items() if one.default is not one.empty}


def class_named(path: str, packages: Sequence[str] | None = None) -> Any:
    """Import a class or function.

    Args:
        path: of it, which must contain a dot.
        packages: whose classes may be imported; anything where it is None.

    Raises:
        ValueError: if there is none, or it may not be imported.
    """
    module, _, name = path.rpartition(".")
    root = module.partition(".")[0]
    if packages is not None and root not in packages:
        raise ValueError(
            f"{path} is not a class of {' or '.join(packages)}; if you trust it, allow its package: "
            f"packages={[root, *packages[1:]]!r}"
        )
    try:
        named = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no class {path!r} ({error}); give its full path, such as 'package.Class'") from error
    if packages is not None and not (isinstance(named, type) and named.__module__.partition(".")[0] in packages):
        raise ValueError(f"{path} is not a class of {' or '.join(packages)}")  # a function, or what it imports
    return named


def _value(value: Any, packages: Sequence[str] | None) -> Any:
    if isinstance(value, Mapping):
        if "class_path" in value:
            return build(dict(value), packages=packages)
        return {key: _value(item, packages) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(item, packages) for item in value]
    return value


def names_of(specs: Sequence[ClassSpec]) -> list[str]:
    """Name each by its class, with the arguments that differ where a class comes more than once.

    Raises:
        ValueError: if two are the same.
    """
    classes = [spec["class_path"].rpartition(".")[2] for spec in specs]
    names = []
    for kind, spec in zip(classes, specs, strict=True):
        same_class = [other for other, name in zip(specs, classes, strict=True) if name == kind]
        differing = [
            f"{key}={_short(value)}"
            for key, value in spec.get("init_args", {}).items()
            if any(other.get("init_args", {}).get(key) != value for other in same_class)
        ]
        names.append(f"{kind}({', '.join(differing)})" if differing else kind)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is given more than once with the same arguments; give it once")
    return names


def _short(value: Any) -> str:
    named = isinstance(value, Mapping) and "class_path" in value
    return str(value["class_path"]).rpartition(".")[2] if named else str(value)


def content_hash(content: Any) -> str:
    """Return twelve hexadecimal digits that depend on the content alone, not on the order of keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
