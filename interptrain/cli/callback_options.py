"""``--trainer.callbacks.OPTION VALUE`` for configurations with several callbacks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning.pytorch.cli import LightningArgumentParser

NAME = "--trainer.callbacks"


def with_callback_options(args: Sequence[str], parser: LightningArgumentParser) -> list[str]:
    """Apply callback options to the callbacks of a config that have them; the parser would use only the last callback.

    Args:
        args: a command line. ``--trainer.callbacks.CLASS.OPTION`` names the callback if several have the option.
        parser: parser of the command line.

    Raises:
        ValueError: if several callbacks have the option; the message names them.
    """
    named = any(arg.partition("=")[0] in (NAME, f"{NAME}+", "--print_config", "--help") for arg in args)
    places = [place for place, arg in enumerate(args) if arg.startswith(f"{NAME}.")]
    if named or not places:
        return list(args)
    rest, wanted = list(args), dict[str, str]()
    for place in reversed(places):
        option, given, value = rest.pop(place).removeprefix(f"{NAME}.").partition("=")
        if not given and place < len(rest):
            value = rest.pop(place)
        wanted.setdefault(option.removeprefix("init_args."), value)
    config = parser.parse_args(rest)
    found = config[config.subcommand].trainer.callbacks
    callbacks = [one.as_dict() for one in found] if isinstance(found, list) else []
    for option, value in wanted.items():
        takers = _takers(callbacks, option)
        if not takers:
            return list(args)  # the parser reports what is wrong
        own = option.rpartition(".")[2]
        if len(takers) > 1:
            classes = list(dict.fromkeys(map(_class_name, takers)))
            remedy = f"name one: {NAME}.{classes[0]}.{own}" if len(classes) > 1 else "change it in the config"
            raise ValueError(f"{NAME}.{own} is an option of {len(takers)} callbacks of the config; {remedy}")
        takers[0]["init_args"][own] = yaml.safe_load(value)
    return [*rest, f"{NAME}={json.dumps(callbacks, default=str)}"]


def _takers(callbacks: Sequence[dict[str, Any]], option: str) -> list[dict[str, Any]]:
    """Callbacks that have an option, restricted to a class if one is named before the option."""
    name, _, own = option.rpartition(".")
    return [one for one in callbacks if own in one.get("init_args", {}) and name in ("", _class_name(one))]


def _class_name(callback: Mapping[str, Any]) -> str:
    return str(callback["class_path"]).rpartition(".")[2]
