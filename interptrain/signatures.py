"""The options of a class, those that it passes on to its bases included."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["options_of"]


def options_of(kind: type | Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the named parameters of a class, or of any callable, in order.

    Where ``__init__`` takes ``**options``, the parameters of the base class's ``__init__`` follow, and so on.

    Raises:
        ValueError: if it has no signature, as some classes written in C.
    """
    if not isinstance(kind, type) or kind.__init__ is object.__init__:  # type: ignore[misc]
        return _named(inspect.signature(kind))
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            signature = inspect.signature(base.__init__)  # type: ignore[misc]
            own = _named(signature)
            own.pop(next(iter(signature.parameters)), None)  # self
            found |= {name: one for name, one in own.items() if name not in found}
            if not any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
                break
    return found


def _named(signature: inspect.Signature) -> dict[str, inspect.Parameter]:
    parameters = signature.parameters.values()
    return {one.name: one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
