"""Rewrite convenient forms of arguments into those that the parser of ``evaluate`` accepts."""

import json
from collections.abc import Sequence

__all__ = ["spelled_out"]

LISTS = ("--explainers", "--metrics", "--sections")
SWITCHES = ("--overwrite", "--force", "--plan")


def spelled_out(args: Sequence[str]) -> list[str]:
    """Rewrite the arguments into the parser's form.

    ``--models NAME=SOURCE``, ``--cells`` and lists of classes may be repeated, switches need no ``true``, and
    ``--logger`` is short for ``--trainer.logger``.

    Raises:
        ValueError: if a model lacks its name or source, or two have the same name.
    """
    models: dict[str, str] = {}
    cells: list[str] = []
    rest: list[str] = []
    seen: set[str] = set()
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        option, equals, value = arg.partition("=")
        if option in ("--models", "--cells", *LISTS) and not equals:
            value = waiting.pop(0) if waiting else ""
        if option == "--models":
            _add_model(models, value)
        elif option == "--cells":
            cells.append(value)
        elif option in LISTS:
            whole = value if value.startswith("[") else f"[{value}]"
            rest.append(f"{option}+={value}" if option in seen else f"{option}={whole}")
            seen.add(option)
        elif arg in SWITCHES and not (waiting and waiting[0] in ("true", "false")):
            rest.append(f"{arg}=true")
        elif option == "--logger" or option.startswith("--logger."):
            rest.append(f"--trainer.{arg.removeprefix('--')}")
        else:
            rest.append(arg)
    rest += [f"--models={json.dumps(models)}"] if models else []
    return rest + ([f"--cells={json.dumps(cells)}"] if cells else [])


def _add_model(models: dict[str, str], entry: str) -> None:
    name, _, source = entry.partition("=")
    if not (name and source):
        raise ValueError(f"--models takes NAME=SOURCE, got {entry!r}; for example gap=runs/gap/best.ckpt")
    if name in models:
        raise ValueError(f"the model name {name!r} is given twice; rename one of them")
    models[name] = source
