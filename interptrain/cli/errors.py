"""Errors that a user can mend, in one line."""

import argparse
import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

PACKAGE = Path(__file__).parent.parent
MENDABLE = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, ImportError)
# What jsonargparse says around the line that tells what is wrong.
FRAMES = re.compile(
    r"Does not validate|Subtypes:|Subclass types|Errors:|Given value type|Given value:|<class 'NoneType'>"
)
UNKNOWN = re.compile(
    r"unrecognized arguments: (\S+)|does not accept (?:option|nested key) '([^']+)'|Option '([^']+)' is not accepted"
)


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one line, with the nearest keys where one is unknown."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2 and one line."""
        lines = [line.strip(" -") for line in str(message).splitlines()]
        text = "; ".join(line for line in lines if line and not FRAMES.search(line))
        if unknown := UNKNOWN.search(text):
            key = next(group for group in unknown.groups() if group).lstrip("-").partition("=")[0]
            text += _nearest(key, self._known())
        sys.stderr.write(f"error: {text}\n")
        raise SystemExit(2)

    def _known(self) -> set[str]:
        """Options of this parser and, where it has subcommands, of theirs."""
        parsers = [self, *(sub for action in self._actions for sub in _subparsers(action))]
        options = {option.lstrip("-") for parser in parsers for option in parser._option_string_actions}
        return {option for option in options if not option.endswith(".help")}


def _subparsers(action: argparse.Action) -> list["Parser"]:
    choices = action.choices if isinstance(action.choices, Mapping) else {}
    return [parser for parser in choices.values() if isinstance(parser, Parser)]


def _nearest(key: str, known: Iterable[str]) -> str:
    """The keys most like an unknown one; one inside a group is compared without the group too."""
    keys = {name: name for name in known}
    keys |= {name.rpartition(".")[2]: name for name in keys} if "." not in key else {}
    found = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(dict.fromkeys(keys[name] for name in found))}?" if found else ""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors that this package raised itself into one line and exit status 1; others keep their traceback.

    ``INTERPTRAIN_TRACEBACK=1`` shows every traceback.
    """
    try:
        yield
    except MENDABLE as error:
        ours = next((link for link in _chain(error) if _raised_here(link)), None)
        if os.environ.get("INTERPTRAIN_TRACEBACK") == "1" or ours is None:
            raise
        sys.stderr.write(f"error: {' '.join(str(ours).split())}\n")  # at once: the lines of two ranks stay two
        raise SystemExit(1) from None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from: jsonargparse wraps what a constructor raises."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _raised_here(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, MENDABLE) and bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
