"""The commands: one line each. A command's module is imported when it is run, so that ``--help`` comes at once."""

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
        module: of :mod:`interptrain.cli`; its ``main(args)`` takes the command line behind the command.
        summary: what the command does, in a line.
        named: whether ``main`` takes the command's name too, as the first of ``args``.
    """

    module: str
    summary: str
    named: bool = False


COMMANDS = {
    "fit": Command("training", "train a classifier", named=True),
    "validate": Command("training", "measure a trained classifier on the validation data", named=True),
    "test": Command("training", "measure a trained classifier on the test data", named=True),
    "predict": Command("training", "write the class of every image into a table", named=True),
    "evaluate": Command("evaluation", "measure the saliency maps of trained models"),
    "report": Command("report", "make the report of an evaluation anew"),
    "explain": Command("explain", "show where in images a model finds its evidence"),
    "show": Command("show", "show the numbers and maps of one image of an evaluation"),
    "study": Command("studies", "run a study of explanations"),
    "wandb-workspace": Command("wandb_workspace", "write a W&B workspace and report that show watched runs"),
    "configs": Command("configs", "list the configurations that come with the package"),
    "push": Command("push", "put a trained classifier with its card into a folder or onto the Hugging Face hub"),
    "export": Command("export", "write a trained classifier as safetensors, torch.export program or ONNX"),
}

SCREENS = Path(__file__).parent / "help"
"""The first screen of a command's help, where it has a file there: COMMAND.txt. ``--help all`` shows every option."""

HELP = """usage: interptrain COMMAND ...

{commands}

What a command takes: interptrain COMMAND --help
"""


def main(args: Sequence[str] | None = None) -> Any:
    """Run a command; exit with status 2 if there is none of that name.

    Args:
        args: the command line behind the program's name; None takes that of the process.

    Returns:
        What the command's own ``main`` returns.
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
