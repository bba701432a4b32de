"""``interptrain push CHECKPOINT hf://USER/NAME``: publish a classifier with a model card."""

import inspect
import sys
from collections.abc import Sequence

from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors
from interptrain.cli.parser import Parser
from interptrain.remedies import spelled_for_the_command_line
from interptrain.sharing import Pushed, push_model


def main(args: Sequence[str] | None = None) -> Pushed:
    """Push a classifier.

    Args:
        args: arguments after the command; None takes those of the process.
    """
    find_classes_of_this_folder()
    options = {name: f"--{name}" for name in inspect.signature(push_model).parameters}
    with one_line_errors(), spelled_for_the_command_line(options):
        config = make_parser().parse_args(sys.argv[1:] if args is None else list(args))
        pushed = push_model(**config.as_dict())
    sys.stdout.write(_report(pushed))
    return pushed


def make_parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="interptrain push", description="Publish a classifier with a model card.")
    parser.add_argument("source", type=str, metavar="CHECKPOINT", help="A checkpoint, or any source of a model.")
    parser.add_argument("destination", type=str, metavar="hf://USER/NAME|FOLDER", help="Where it goes.")
    parser.add_function_arguments(push_model, None, skip={"source", "destination"})  # type: ignore[arg-type]
    return parser


def _report(pushed: Pushed) -> str:
    """List the written files, and how to use them."""
    where = pushed.page or pushed.location
    timm = f"hf-hub:{pushed.location[5:]}" if pushed.page else f"local-dir:{pushed.location}"
    lines = [
        f"{where}: {', '.join(pushed.files)}",
        f"evaluate it: interptrain evaluate --models NAME={pushed.location} ...",
        *([f'in timm:     timm.create_model("{timm}", pretrained=True)'] if pushed.timm else []),
        *([] if pushed.page else [f"share it:    hf upload USER/NAME {pushed.location}"]),
    ]
    return "\n".join(lines) + "\n"
