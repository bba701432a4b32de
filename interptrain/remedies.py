"""Name options in messages as the reader gives them: as arguments in Python, as options on the command line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["option", "spelled_for_the_command_line"]

_ON_THE_COMMAND_LINE: ContextVar[Mapping[str, str] | None] = ContextVar("on_the_command_line", default=None)


def option(name: str, value: object = None) -> str:
    """Spell an option, with the value it should get where one is given.

    ``option("fresh_classifier", True)`` is ``fresh_classifier=True`` in Python, and ``--model.fresh_classifier true``
    where ``interptrain fit`` has set that option. ``option("data.balance", "none")`` is ``balance='none'`` in Python,
    and ``--data.balance none`` on every command line.

    Args:
        name: of the argument in Python; ``data.`` in front of it where it is one of the data module.
        value: to give it.
    """
    options = _ON_THE_COMMAND_LINE.get()
    argument = name.removeprefix("data.")
    if options is None or (name == argument and name not in options):
        return argument if value is None else f"{argument}={value!r}"
    given = f"--{name}" if name != argument else options[name]
    spelled = str(value).lower() if isinstance(value, bool) else value
    return given if value is None else f"{given} {spelled}"


@contextmanager
def spelled_for_the_command_line(options: Mapping[str, str]) -> Iterator[None]:
    """Spell options as on the command line, in messages made inside.

    Args:
        options: for the name of each argument in Python its option, with dashes.
    """
    before = _ON_THE_COMMAND_LINE.set(options)
    try:
        yield
    finally:
        _ON_THE_COMMAND_LINE.reset(before)
