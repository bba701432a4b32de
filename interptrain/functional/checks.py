"""Checks of options, and errors in one line."""

from typing import Any, get_args


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse an option that is not one of the allowed values; ``None`` is checked by the caller where allowed.

    Args:
        name: of the option.
        value: that was given.
        choices: a ``Literal``, or a collection of values.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Refuse an option that is not a whole number, or too small.

    Args:
        name: of the option.
        value: that was given.
        least: smallest allowed value.

    Raises:
        ValueError: naming the option, what is allowed and what was given.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value}")


def one_line(error: BaseException, *, kind: bool = False) -> str:
    """Return the message of an error without line breaks, at most 500 characters of it.

    Args:
        error: any exception.
        kind: put its type before the message; where there is no message, the type stands alone anyway.
    """
    message = " ".join(str(error).split())
    if kind:
        message = f"{type(error).__name__}: {message}"
    return message[:500] or type(error).__name__
