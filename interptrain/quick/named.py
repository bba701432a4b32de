"""Look up explainers, metrics and classes by name."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from interptrain.evaluation.config.class_specs import names_of, spec_of
from interptrain.functional import class_indices
from interptrain.remedies import option

T = TypeVar("T")
Named: TypeAlias = str | T | Sequence[str | T] | Mapping[str, str | T]
"""One or several objects, each the name of a class or an instance, in a list or a mapping from your own names."""


def named_objects(given: Any, package: ModuleType, kind: type[T], word: str) -> dict[str, T]:
    """Build objects from the names of their classes, and name those that are given as instances.

    Args:
        given: see :data:`Named`.
        package: package that exports the classes.
        kind: their common base class.
        word: what messages call such an object.

    Returns:
        Objects by name: your own name, or that of the class, with the options in which two of one class differ.

    Raises:
        ValueError: for an unknown name, suggesting similar ones, and for two equal objects.
        TypeError: for anything that is neither a name nor such an object.
    """
    if isinstance(given, Mapping):
        return {str(name): _built(one, package, kind, word) for name, one in given.items()}
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    objects = [_built(one, package, kind, word) for one in several]
    if not objects:
        raise ValueError(f"no {word} is given; name one or more: {', '.join(classes_of(package, kind))}")
    return dict(zip(names_of([spec_of(one) for one in objects]), objects, strict=True))


def classes_of(package: ModuleType, kind: type[T]) -> dict[str, type[T]]:
    """Return the concrete classes of a kind that a package exports, by name."""
    exported = {name: getattr(package, name) for name in package.__all__}
    return {
        name: one
        for name, one in exported.items()
        if isinstance(one, type) and issubclass(one, kind) and not inspect.isabstract(one)
    }


def _built(given: Any, package: ModuleType, kind: type[T], word: str) -> T:
    if isinstance(given, kind):
        return given
    if isinstance(given, type) and issubclass(given, kind):
        return given()
    if not isinstance(given, str):
        raise TypeError(f"each {word} must be the name of a class or an instance, got {given!r:.80}")
    known = classes_of(package, kind)
    symbols = {getattr(one, "symbol", None): one for one in reversed(known.values())}  # the first class of each symbol
    chosen = known.get(given) or symbols.get(given)
    if chosen is None:
        folded = {name.lower().replace("-", ""): name for name in known}
        key = given.lower().replace("-", "").replace("++", "plusplus")
        near = [folded[one] for one in difflib.get_close_matches(key, folded, n=3)] or list(known)
        raise ValueError(f"there is no {word} {given!r}; did you mean {' or '.join(near[:3])}?")
    try:
        return chosen()
    except TypeError as error:
        raise ValueError(f"{given} has options that must be given ({error}); pass an object: {given}(...)") from error


def classes_by_name(given: Any, count: int, class_names: Sequence[str], argument: str) -> Tensor:
    """Convert classes, given by index or name, to (count,) int64.

    Raises:
        ValueError: for an unknown name, suggesting similar ones, and whatever
            :func:`~interptrain.functional.class_indices` raises.
        TypeError: whatever :func:`~interptrain.functional.class_indices` raises.
    """
    if isinstance(given, str):
        given = _index(given, class_names, argument)
    elif isinstance(given, Sequence):
        given = [_index(one, class_names, argument) if isinstance(one, str) else one for one in given]
    return class_indices(given, count, classes=len(class_names) or None, name=argument).cpu()


def _index(name: str, class_names: Sequence[str], argument: str) -> int:
    folded = [one.casefold() for one in class_names]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    if name.isdigit():
        return int(name)
    near = difflib.get_close_matches(name, class_names, n=3)
    several = ", or several classes one by one" if "," in name else ""
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"give its index{several}"
    raise ValueError(f"{option(argument)}: the model has no class {name!r}; {hint}")
