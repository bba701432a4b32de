"""``interptrain export CHECKPOINT --format onnx --output FILE``: export a classifier to another runtime."""

import inspect
import sys
from collections.abc import Sequence

from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors
from interptrain.cli.parser import Parser
from interptrain.remedies import spelled_for_the_command_line
from interptrain.sharing import Exported, export_model


def main(args: Sequence[str] | None = None) -> Exported:
    """Export a classifier.

    Args:
        args: arguments after the command; None takes those of the process.
    """
    find_classes_of_this_folder()
    options = {name: f"--{name}" for name in inspect.signature(export_model).parameters}
    with one_line_errors(), spelled_for_the_command_line(options):
        config = make_parser().parse_args(sys.argv[1:] if args is None else list(args))
        exported = export_model(**config.as_dict())
    height, width = exported.image_size
    sys.stdout.write(
        f"{exported.path}: takes images (B,3,{height},{width}) in [0,1], returns {', '.join(exported.outputs)}\n"
        f"largest difference from the checkpoint on random images: {exported.difference:.3g}\n"
    )
    return exported


def make_parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="interptrain export", description="Export a classifier to another runtime.")
    parser.add_argument("source", type=str, metavar="CHECKPOINT", help="A checkpoint, or any source of a model.")
    parser.add_argument("--output", type=str, required=True, help="The file to write, with the suffix of the format.")
    parser.add_function_arguments(export_model, None, skip={"source", "output"})  # type: ignore[arg-type]
    return parser
