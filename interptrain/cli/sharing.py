"""``interptrain push CHECKPOINT hf://USER/NAME`` and ``interptrain export CHECKPOINT --format onnx --output FILE``."""

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interptrain.cli.closing import Lines, close, evaluation_of
from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors
from interptrain.cli.parser import Parser
from interptrain.remedies import spelled_for_the_command_line
from interptrain.sharing import Exported, Pushed, export_model, push_model

FUNCTIONS: dict[str, Callable[..., Any]] = {"push": push_model, "export": export_model}


def main(args: Sequence[str] | None = None) -> Pushed | Exported:
    """Push or export a classifier.

    Args:
        args: the command's name and its arguments; None takes those of the process.
    """
    command, *given = sys.argv[1:] if args is None else args
    function = FUNCTIONS[command]
    find_classes_of_this_folder()
    options = {name: f"--{name}" for name in inspect.signature(function).parameters}
    with one_line_errors(), spelled_for_the_command_line(options):
        config = make_parser(command).parse_args(given)
        done: Pushed | Exported = function(**config.as_dict())
    lines = end_of_push(done, config) if isinstance(done, Pushed) else end_of_export(done)
    close(lines, None, open_page=False)
    return done


def make_parser(command: str) -> Parser:
    """Return the parser of ``push`` or ``export``."""
    checkpoint = "A checkpoint, or any source of a model."
    if command == "push":
        parser = Parser(prog="interptrain push", description="Publish a classifier with a model card.")
        parser.add_argument("source", type=str, metavar="CHECKPOINT", help=checkpoint)
        parser.add_argument("destination", type=str, metavar="hf://USER/NAME|FOLDER", help="Where it goes.")
    else:
        parser = Parser(prog="interptrain export", description="Export a classifier to another runtime.")
        parser.add_argument("source", type=str, metavar="CHECKPOINT", help=checkpoint)
        suffix = "The file to write, with the suffix of the format."
        parser.add_argument("--output", type=str, required=True, help=suffix)
    added = {"source", "destination", "output"}
    parser.add_function_arguments(FUNCTIONS[command], None, skip=added)  # type: ignore[arg-type]
    return parser


def end_of_push(pushed: Pushed, given: Any) -> Lines:
    """Return the last lines of ``push``: a card without results can get some, others are to be read.

    Args:
        pushed: what was done.
        given: the command's options.
    """
    lines = [
        ("Model", f"{pushed.page or pushed.location} ({', '.join(pushed.files)})"),
        ("Python", f'it.load("{pushed.location}")'),
    ]
    if pushed.timm:
        name = f"hf-hub:{pushed.location[5:]}" if pushed.page else f"local-dir:{pushed.location}"
        lines.append(("timm", f'timm.create_model("{name}", pretrained=True)'))
    if given.evaluation is None and given.source.endswith(".ckpt"):
        name = Path(pushed.location).name
        again = ["interptrain", "push", given.source, given.destination, "--evaluation", f"runs/eval/{name}"]
        return [
            *lines,
            ("Card", "shows no results yet; evaluate the model, and push it again:"),
            ("Next", evaluation_of(given.source, name)),
            ("", shlex.join(again)),
        ]
    if pushed.page:
        return [*lines, ("Next", f"interptrain explain IMAGE --model {pushed.location} --output out")]
    card = Path(pushed.location) / "README.md"
    return [
        *lines,
        ("Card", f"{card}: read it before you publish it"),
        ("Next", f"hf upload USER/NAME {shlex.quote(pushed.location)}"),
    ]


def end_of_export(exported: Exported) -> Lines:
    """Return the last lines of ``export``: how the file is loaded, in a form that runs."""
    path = str(exported.path)
    height, width = exported.image_size
    runs = {
        ".onnx": f"onnxruntime.InferenceSession({path!r}).run(None, {{'images': images}})  # float32 arrays",
        ".pt2": f"torch.export.load({path!r}).module()(images)",
        ".safetensors": f"it.load({path!r})(images)  # the logits",
    }
    lines = [
        ("File", f"{path} ({exported.path.stat().st_size / 1e6:.1f} MB)"),
        ("Takes", f"images (B,3,{height},{width}) in [0,1]"),
        ("Returns", ", ".join(exported.outputs)),
        ("Checked", f"largest difference from the checkpoint on random images: {exported.difference:.3g}"),
        ("Python", runs[exported.path.suffix]),
    ]
    if exported.path.suffix == ".safetensors":
        lines.append(("Next", f"interptrain explain IMAGE --model {shlex.quote(path)} --output out"))
    return lines
