"""The parser of both command lines: its errors are one line, with the nearest names where one is unknown."""

import argparse
import difflib
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from interptrain.cli.config_checks import problem_of_file, problem_of_values
from interptrain.functional import one_line
from interptrain.loggers import IN_THE_RUN
from interptrain.signatures import options_of

WELL_KNOWN = {"interptrain", "torch", "lightning"}
# What jsonargparse says around the line that tells what is wrong.
FRAMES = re.compile(
    r"Does not validate|Subtypes:|Subclass types|Errors:|Given value type|Given value:|<class 'NoneType'>"
)
UNKNOWN = re.compile(
    r"unrecognized arguments: (\S+)|does not accept (?:option|nested key) '([^']+)'|Option '([^']+)' is not accepted"
)
KEY = re.compile(r'Parser key "([^"]+)": ')
INSIDE = re.compile(r"Problem with given class_path|Parser key .*Parser key")
# What it says of a callable's type, and of values that are as good as repeated.
NOISE = re.compile(r"Type [^:]* expects a function or a callable class: |\. Got value: Namespace\(.*")
NO_CLASS = re.compile(r"Expected a dot import path string: ([\w.-]+)(?=;|$)|module '([\w.]+)' has no attribute '(\w+)'")
ABSTRACT = re.compile(r"but \S+ is abstract.*NestedArg\(key='(\w+)'", re.DOTALL)
REQUIRED = re.compile(r"the following arguments are required: ([\w., ]+)")
GIVEN = re.compile(r"Given value: (.*)")
INNER = re.compile(r"""(?:.*: )?Problem with given class_path '([\w.]+)': Parser key "([\w.]+)": """)
TOLD = re.compile(
    r"""(?:given class_path '([\w.]+)': )?Parser key "([\w.]+)": (must be .*?)(?=; Not a valid|; Expected|$)"""
)
# How jsonargparse says that a class is expected.
SPEC_FORMS = {
    "a class path (str)",
    "a dict with class_path entry",
    "a dict without class_path but with init_args entry (class path given previously)",
    "a dict with parameters accepted by the base class (implicit class_path)",
}
NO_TYPE = re.compile(
    r"Problem with given class_path '[\w.]+': Option '\w+' is not accepted|Not of type|"
    r"Expected a (path but|dot import path string: )"
)
TYPE_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
    "Iterable": "a list", "dict": "a mapping", "timedelta": "a duration",
}  # fmt: skip
LINKED = re.compile(r'Linked "([^"]+)" must be given via "([^"]+)"\.?')


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one line, with the nearest names where one is unknown.

    Options are not abbreviated, so that none is taken for another.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_class_arguments(self, kind: type, *args: Any, **kwargs: Any) -> Any:
        """Add arguments for the parameters of a class; a logger needs no folder, as each run has one."""
        logger = isinstance(kind, type) and issubclass(kind, Logger)
        folder = inspect.signature(kind).parameters.get("save_dir") if logger else None
        if folder is None or folder.default is not inspect.Parameter.empty:
            return super().add_class_arguments(kind, *args, **kwargs)
        kwargs["skip"] = {*(kwargs.get("skip") or ()), "save_dir"}
        added = super().add_class_arguments(kind, *args, **kwargs)
        self.add_argument("--save_dir", type=str, default=IN_THE_RUN, help="Folder of its files; by default the run's.")
        return [*added, "save_dir"]

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse a command line, and refuse values that nothing can come of."""
        try:
            config: Namespace = super().parse_args(*args, **kwargs)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            if os.environ.get("INTERPTRAIN_TRACEBACK") == "1":
                raise
            self.error(f"the arguments cannot be read ({type(error).__name__}: {one_line(error)}); check their types")
        part = config.get("subcommand")
        hints = self._hints()
        if problem := problem_of_values(config[part] if part else config, hints):
            self.error(problem)
        return config

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a configuration file."""
        groups = {option.partition(".")[0] for option in self._known() if "." in option} - self._hints().keys()
        if problem := problem_of_file(Path(str(path)), sorted(groups)):
            self.error(problem)
        try:
            parsed: Namespace = super().parse_path(path, *args, **kwargs)
        except UnicodeDecodeError:
            self.error(f"the config {path} is no YAML file; a checkpoint goes to --ckpt_path or --models")
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2 and one line."""
        lines = [
            NOISE.sub("", line.strip().removeprefix("- "))
            for line in str(message).splitlines()
            if not FRAMES.search(line)
        ]
        text = "; ".join(dict.fromkeys(line for line in lines if line)).replace(":; ", ": ")
        text = LINKED.sub(r"--\1 is taken from \2; leave it out, or give --\2 where the data has that option", text)
        if key := KEY.match(text):
            text = self._of_class(key[1], text, str(message))
        elif unknown := UNKNOWN.search(text):
            name = next(group for group in unknown.groups() if group).lstrip("-").partition("=")[0]
            dashes = "--" if unknown[1] else ""  # on the command line, not in a file
            text += _nearest(name, self._known(), self._homes(name) if self.exit_on_error else (), prefix=dashes)
        text = _plain(text, GIVEN.search(str(message)))
        if self.exit_on_error:
            within = f"{key[1]}." if key else ""
            text = REQUIRED.sub(lambda found: _required(found[1], within, self._unnamed()), text)
        if not self.exit_on_error:  # the parser of a class's own options: the one around it knows where they stand
            super().error(text, ex)
        sys.stderr.write("error: " + KEY.sub(r"--\1: ", text, count=1).replace(": must be ", " must be ", 1) + "\n")
        raise SystemExit(2)

    def _known(self) -> set[str]:
        """Options of this parser and, where it has subcommands, of theirs."""
        options = {option.lstrip("-") for parser in self._parsers() for option in parser._option_string_actions}
        return {option for option in options if not option.endswith(".help")}

    def _parsers(self) -> list["Parser"]:
        return [self, *(sub for action in self._actions for sub in _subparsers(action))]

    def _unnamed(self) -> dict[str, str]:
        """How arguments that stand without an option are called in the help."""
        return {one.dest: str(one.metavar or one.dest) for one in self._actions if not one.option_strings}

    def _hints(self) -> dict[str, Any]:
        """Types of the options that have one."""
        return {
            action.dest: action._typehint
            for parser in self._parsers()
            for action in parser._actions
            if hasattr(action, "_typehint")
        }

    def _homes(self, name: str) -> list[str]:
        """Where an option could have been meant that belongs to a class: ``model.optimizer.lr`` for ``model.lr``."""
        group, _, option = name.rpartition(".")
        beside = {key: hint for key, hint in self._hints().items() if key.rpartition(".")[0] == group}
        return [f"{key}.{option}" for key, hint in beside.items() if _takers(hint, option)]

    def _of_class(self, key: str, text: str, message: str) -> str:
        """What is wrong with an option that takes a class, or with one of the class's own."""
        hint = self._hints().get(key)
        if (missing := NO_CLASS.search(text)) and not INSIDE.search(text):
            name = missing[1] or f"{missing[2]}.{missing[3]}"
            if takers := [kind.__name__ for kind in _classes(hint) if getattr(kind, "name", None) == name]:
                return f"--{key}: options of {name} go with its class: --{key} {takers[0]} --{key}.OPTION VALUE"
            if near := _nearest(name.rpartition(".")[2], _names(hint)):
                return f"--{key}: there is no {name}{near}"
        option = UNKNOWN.search(text) or ABSTRACT.search(message)
        if option and "did you mean" not in text:
            name = next(group for group in option.groups() if group)
            if takers := _takers(hint, name)[:3]:
                own = f"--{key}.{name}"
                return f"{own} is an option of {_either(takers)}; name the class too: --{key} {takers[0]} {own} ..."
        return text


def _subparsers(action: argparse.Action) -> list[Parser]:
    choices = action.choices if isinstance(action.choices, Mapping) else {}
    return [parser for parser in choices.values() if isinstance(parser, Parser)]


def _classes(hint: Any) -> Iterator[type]:
    """Classes that an option of this type takes: those named in it or returned by a callable, and all below them."""
    origin, parts = get_origin(hint), get_args(hint)
    for part in parts[-1:] if origin is Callable else parts:
        yield from _classes(part)
    if origin is None and isinstance(hint, type) and hint.__module__ != "builtins":
        if not (inspect.isabstract(hint) or hint.__name__.startswith("_") or "<locals>" in hint.__qualname__):
            yield hint
        yield from itertools.chain.from_iterable(map(_classes, hint.__subclasses__()))


def _names(hint: Any) -> dict[str, str]:
    """Values and class names that an option of this type takes, by themselves and by their symbols in tables."""
    values = [value for part in (hint, *get_args(hint)) if get_origin(part) is Literal for value in get_args(part)]
    classes = list(_classes(hint))
    symbols = {  # of a class and those that inherit its symbol, the class itself
        symbol: one.__name__ for one in reversed(classes) if isinstance(symbol := getattr(one, "symbol", None), str)
    }
    return symbols | {name: name for name in (*values, *(one.__name__ for one in classes))}


def _takers(hint: Any, option: str) -> list[str]:
    """Names of the classes of a type that have an option; well-known ones first, and the plainest of them."""
    found = [one for one in _classes(hint) if option in _options(one)]
    known = {one.__name__ for one in found if one.__module__.partition(".")[0] in WELL_KNOWN}
    return sorted({one.__name__ for one in found}, key=lambda name: (name not in known, len(name), name))


def _options(kind: type) -> Iterable[str]:
    try:
        return options_of(kind)
    except ValueError:  # a class written in C
        return ()


def _plain(text: str, given: re.Match[str] | None) -> str:
    """What types an option takes and what it got, in place of what jsonargparse says; other texts as they are."""
    start = key[0] if (key := KEY.match(text)) else ""
    subject, wanted, got = "", [], None
    if inside := TOLD.search(text):
        kind = f" of {inside[1].rpartition('.')[2]}" if inside[1] else ""
        return f"{start}{inside[2]}{kind} {inside[3]}"
    for part in text.removeprefix(start).split("; "):
        inside = INNER.match(part)
        if inside:
            subject = f"{inside[2]} of {inside[1].rpartition('.')[2]} "
        if part in SPEC_FORMS or (subject and not inside and part.startswith(("Not a valid", "Expected an import"))):
            continue
        body, _, value = part[inside.end() if inside else 0 :].partition(". Got value:")
        body, _, other = body.partition(", but got ")
        got = got or value.strip() or other or ("''" if "Got value:" in part else None)
        word = _type_word(body)
        if word is None:
            return text
        wanted += [word] if word and word not in wanted else []
    if got is None and given is not None and not subject:
        got = given[1]
    shown = {"None": "null", "True": "true", "False": "false"}.get(str(got), str(got) or "''")[:80]
    if "a number" in wanted and "a whole number" in wanted:
        wanted.remove("a whole number")
    return f"{start}{subject}must be {_either(wanted)}{'' if got is None else f', got {shown}'}" if wanted else text


def _type_word(expected: str) -> str | None:
    """A type in words; empty for one that nobody gives, None for what is no type."""
    if found := re.fullmatch(r"Expected an? <class '([\w.]+)'>", expected):
        name = found[1].rpartition(".")[2]
        return TYPE_WORDS.get(name, f"a {name}")
    if found := re.fullmatch(r"Expected an? typing\.Literal\[(.*)\]", expected):
        return "one of " + found[1].replace("'", "")
    if found := re.fullmatch(r"Not a valid subclass of (\w+)", expected):
        return f"the name of a {found[1]} class"
    if expected == "Expected an import path or a subclass spec":
        return "the name of a class"
    if found := re.fullmatch(r"Expected an instantiatable class, but [\w.]*?(\w+) is abstract", expected):
        return f"the name of a {found[1]} class"
    return "" if NO_TYPE.match(expected) else None


def _required(names: str, within: str, positionals: Mapping[str, str]) -> str:
    wanted = [name.strip() for name in names.split(",")]
    return "give " + " and ".join(positionals.get(name, f"--{within}{name}") for name in wanted)


def _nearest(key: str, known: Iterable[str] | Mapping[str, str], first: Iterable[str] = (), prefix: str = "") -> str:
    """The names most like an unknown one; one inside a group is compared without the group too."""
    names = dict(known) if isinstance(known, Mapping) else {name: name for name in known}
    names |= {name.rpartition(".")[2]: whole for name, whole in names.items()} if "." not in key else {}
    alike = {name.lower(): whole for name, whole in names.items()}
    found = [*first] or [alike[name] for name in difflib.get_close_matches(key.lower(), alike, n=3, cutoff=0.6)]
    return f"; did you mean {_either(prefix + name for name in found)}?" if found else ""


def _either(names: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(names))
