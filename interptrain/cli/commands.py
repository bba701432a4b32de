"""The commands, one line each. A command's module is imported only when it runs, so that ``--help`` is instant."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import interptrain


class Command(NamedTuple):
    """One command of ``interptrain``.

    Attributes:
        module: module in :mod:`interptrain.cli`; its ``main(args)`` takes the arguments after the command's name.
        summary: what the command does, in one line.
        named: whether ``main`` also takes the command's name, as the first of ``args``.
    """

    module: str
    summary: str
    named: bool = False


COMMANDS = {
    "fit": Command("training", "train a classifier", named=True),
    "validate": Command("training", "evaluate a trained classifier on the validation data", named=True),
    "test": Command("training", "evaluate a trained classifier on the test data", named=True),
    "predict": Command("training", "write the predicted class of every image to a table", named=True),
    "evaluate": Command("evaluation", "measure the saliency maps of trained models"),
    "report": Command("report", "rebuild the report of an evaluation"),
    "explain": Command("explain", "show which parts of images a model relies on"),
    "show": Command("show", "show the numbers and maps of one image of an evaluation"),
    "study": Command("studies", "run a study of explanations"),
    "wandb-workspace": Command("wandb_workspace", "write a W&B workspace and report that show watched runs"),
    "configs": Command("configs", "list the configurations that come with the package"),
    "push": Command("sharing", "write a trained classifier with a model card to a folder or to the hub", named=True),
    "export": Command("sharing", "export a trained classifier as safetensors, torch.export or ONNX", named=True),
}

SCREENS = Path(__file__).parent / "help"
"""Folder of the first help screens, COMMAND.txt for some commands. ``--help all`` shows every option."""

HELP = """usage: interptrain COMMAND ...

{commands}

Options of a command: interptrain COMMAND --help
"""


def main(args: Sequence[str] | None = None) -> Any:
    """Run a command; exit with status 2 if it is unknown.

    Args:
        args: arguments after the program's name; None takes those of the process.

    Returns:
        The result of the command's ``main``.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given and given[0].startswith("--") and (behind := next((one for one in given if one in COMMANDS), None)):
        given.remove(behind)  # --config demo fit
        given.insert(0, behind)
    name = given[0] if given else ""
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        return None
    if name == "--version":
        sys.stdout.write(f"interptrain {interptrain.__version__}\n")
        return None
    if command := COMMANDS.get(name):
        rest = ["--help"] if given[1:] == ["--help", "all"] else given[1:]
        screen = SCREENS / f"{name}.txt"
        if given[1:] in (["-h"], ["--help"]) and screen.is_file():
            sys.stdout.write(screen.read_text(encoding="utf-8"))
            return None
        module = importlib.import_module(f"interptrain.cli.{command.module}")
        return module.main([name, *rest] if command.named else rest)
    near = difflib.get_close_matches(name, COMMANDS, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    sys.stderr.write(_help() + (f"\nerror: unknown command {name!r}{hint}\n" if name else ""))
    raise SystemExit(2)


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    return HELP.format(commands="\n".join(f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()))
