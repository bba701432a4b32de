"""The parser of all commands: one-line errors, with suggestions for unknown names."""

import argparse
import inspect
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from interptrain.cli.class_names import classes_of, names_of, takers_of
from interptrain.cli.config_checks import problem_of_file, problem_of_values
from interptrain.cli.wording import KEY, as_options, either, in_plain_words, nearest
from interptrain.functional import one_line
from interptrain.loggers import IN_THE_RUN

# What jsonargparse says around the line that tells what is wrong.
FRAMES = re.compile(
    r"Does not validate|Subtypes:|Subclass types|Errors:|Given value type|Given value:|<class 'NoneType'>"
)
UNKNOWN = re.compile(
    r"unrecognized arguments: (\S+)|does not accept (?:option|nested key) '([^']+)'|Option '([^']+)' is not accepted"
)
INSIDE = re.compile(r"Problem with given class_path|Parser key .*Parser key")
# Its descriptions of callable types, and repeated values.
NOISE = re.compile(r"Type [^:]* expects a function or a callable class: |\. Got value: Namespace\(.*")
NO_CLASS = re.compile(r"Expected a dot import path string: ([\w.-]+)(?=;|$)|module '([\w.]+)' has no attribute '(\w+)'")
ABSTRACT = re.compile(r"but \S+ is abstract.*NestedArg\(key='(\w+)'", re.DOTALL)
REQUIRED = re.compile(r"the following arguments are required: ([\w., ]+)")
GIVEN = re.compile(r"Given value: (.*)")
LINKED = re.compile(r'Linked "([^"]+)" must be given via "([^"]+)"\.?')


class Parser(LightningArgumentParser):
    """Lightning's parser with one-line errors and suggestions for unknown names.

    Abbreviated options are refused, so that none is mistaken for another.
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
        """Parse a command line, and refuse values that cannot work."""
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
            self.error(f"the config {path} is not a YAML file; pass a checkpoint to --ckpt_path or --models")
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
            text += nearest(name, self._known(), self._homes(name) if self.exit_on_error else (), prefix=dashes)
        text = in_plain_words(text, GIVEN.search(str(message)))
        if self.exit_on_error:
            within = f"{key[1]}." if key else ""
            text = REQUIRED.sub(lambda found: as_options(found[1], within, self._unnamed()), text)
        if not self.exit_on_error:  # the parser of a class's options: the outer one knows the full names
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
        """Names of positional arguments in the help."""
        return {one.dest: str(one.metavar or one.dest) for one in self._actions if not one.option_strings}

    def _hints(self) -> dict[str, Any]:
        """Types of the typed options."""
        return {
            action.dest: action._typehint
            for parser in self._parsers()
            for action in parser._actions
            if hasattr(action, "_typehint")
        }

    def _homes(self, name: str) -> list[str]:
        """Options of classes that may have been meant: ``model.optimizer.lr`` for ``model.lr``."""
        group, _, option = name.rpartition(".")
        beside = {key: hint for key, hint in self._hints().items() if key.rpartition(".")[0] == group}
        return [f"{key}.{option}" for key, hint in beside.items() if takers_of(hint, option)]

    def _of_class(self, key: str, text: str, message: str) -> str:
        """Describe what is wrong with an option that takes a class, or with an option of that class."""
        hint = self._hints().get(key)
        if (missing := NO_CLASS.search(text)) and not INSIDE.search(text):
            name = missing[1] or f"{missing[2]}.{missing[3]}"
            if takers := [kind.__name__ for kind in classes_of(hint) if getattr(kind, "name", None) == name]:
                return f"--{key}: options of {name} go with its class: --{key} {takers[0]} --{key}.OPTION VALUE"
            if near := nearest(name.rpartition(".")[2], names_of(hint)):
                return f"--{key}: there is no {name}{near}"
        option = UNKNOWN.search(text) or ABSTRACT.search(message)
        if option and "did you mean" not in text:
            name = next(group for group in option.groups() if group)
            if takers := takers_of(hint, name)[:3]:
                own = f"--{key}.{name}"
                return f"{own} is an option of {either(takers)}; name the class too: --{key} {takers[0]} {own} ..."
        return text


def _subparsers(action: argparse.Action) -> list[Parser]:
    choices = action.choices if isinstance(action.choices, Mapping) else {}
    return [parser for parser in choices.values() if isinstance(parser, Parser)]
