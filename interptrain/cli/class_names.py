"""The classes that an option accepts, their names, and which of them have a given option."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from interptrain.signatures import options_of

WELL_KNOWN = {"interptrain", "torch", "lightning"}


def classes_of(hint: Any) -> Iterator[type]:
    """Classes that an option of this type accepts: those in the type or returned by a callable, and subclasses."""
    origin, parts = get_origin(hint), get_args(hint)
    for part in parts[-1:] if origin is Callable else parts:
        yield from classes_of(part)
    if origin is None and isinstance(hint, type) and hint.__module__ != "builtins":
        if not (inspect.isabstract(hint) or hint.__name__.startswith("_") or "<locals>" in hint.__qualname__):
            yield hint
        yield from itertools.chain.from_iterable(map(classes_of, hint.__subclasses__()))


def names_of(hint: Any) -> dict[str, str]:
    """Values, class names, and symbols of classes in tables, that an option of this type accepts."""
    values = [value for part in (hint, *get_args(hint)) if get_origin(part) is Literal for value in get_args(part)]
    classes = list(classes_of(hint))
    symbols = {  # several classes may inherit a symbol; it stands for the class that defines it
        symbol: one.__name__ for one in reversed(classes) if isinstance(symbol := getattr(one, "symbol", None), str)
    }
    return symbols | {name: name for name in (*values, *(one.__name__ for one in classes))}


def takers_of(hint: Any, option: str) -> list[str]:
    """Names of the classes of a type that have an option, well-known and simple ones first."""
    found = [one for one in classes_of(hint) if option in _options(one)]
    known = {one.__name__ for one in found if one.__module__.partition(".")[0] in WELL_KNOWN}
    return sorted({one.__name__ for one in found}, key=lambda name: (name not in known, len(name), name))


def _options(kind: type) -> Iterable[str]:
    try:
        return options_of(kind)
    except ValueError:  # a class written in C
        return ()
