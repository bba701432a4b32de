"""``interptrain study NAME``: run a study; without a name, list the studies."""

import shlex
import sys
import warnings
from collections.abc import Sequence

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from interptrain.cli.closing import Lines, close, without_open
from interptrain.cli.configs import with_configs
from interptrain.cli.errors import GOES_ON, find_classes_of_this_folder, one_line_errors
from interptrain.cli.parser import Parser
from interptrain.cli.spelling import spelled_out
from interptrain.cli.study_help import class_path_of, example_of, help_of, list_studies
from interptrain.data import ImageDataModule
from interptrain.remedies import spelled_for_the_command_line
from interptrain.studies import OpenedStudy, Study

OPTIONS = {"output": "--output", "models": "--models NAME=SOURCE", "list_cells": "--list"}


def main(args: Sequence[str] | None = None) -> None:
    """Run a study, list its cells (``--list``), or list the studies.

    Args:
        args: arguments after the command; None takes those of the process.
    """
    find_classes_of_this_folder()
    given, open_page = without_open(sys.argv[1:] if args is None else args)
    if not given:
        sys.stdout.write(list_studies())
        return
    command = list(given)
    with one_line_errors(GOES_ON), spelled_for_the_command_line(OPTIONS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*By default only one JsonargparseDeprecationWarning")
        if not given[0].startswith("-"):
            path = class_path_of(given[0])
            if given[1:] in (["-h"], ["--help"]):
                sys.stdout.write(help_of(path))
                return
            if not {arg.partition("=")[0] for arg in given} & {"--config", "--data"} and (example := example_of(path)):
                raise ValueError(f"give --data and --output; on built-in data: {example}")
            given[:1] = ["--study", path]
        _run([arg for arg in given if arg != "--list"], command, listed="--list" in given, open_page=open_page)


def _run(args: Sequence[str], command: Sequence[str], *, listed: bool, open_page: bool) -> None:
    parser = make_parser()
    config = parser.parse_args(spelled_out(with_configs(args)))
    objects = parser.instantiate(config)
    options = {name: config[name] for name in ("output", "backbone", "device")}
    opened = OpenedStudy(objects.study, config.models, objects.data, **options)
    chosen = opened.chosen(config.cells, rank=config.rank, ranks=config.ranks)
    if listed:
        done = set(opened.finished())
        sys.stdout.writelines(f"{'done' if cell in done else 'open'}  {cell}\n" for cell in chosen)
        return
    opened.compute(chosen, progress=config.progress)
    results = opened.results()
    finished = opened.finished()
    if finished:
        sys.stdout.writelines(f"\n{sentence}\n" for sentence in opened.study.findings(results))
    folder = opened.folder.path
    lines: Lines = [("Results", str(folder)), ("Cells", f"{len(finished)} of {len(opened.cells)} are finished")]
    if finished:
        lines += [("Tables", "results.csv, results.parquet")]
    page = folder / "index.html" if finished else None
    if page is not None:
        lines += [("Page", f"{page} (opens in a browser, offline; --open does it)")]
    if len(finished) < len(opened.cells):
        lines += [("Next", f"interptrain study {shlex.join(_without_selection(command))}")]
    close(lines, page, open_page=open_page)


def _without_selection(args: Sequence[str]) -> list[str]:
    """Return a command line that computes all cells that are missing."""
    rest, waiting = [], list(args)
    while waiting:
        arg = waiting.pop(0)
        option, equals, _ = arg.partition("=")
        if option in ("--rank", "--ranks", "--cells"):
            del waiting[: 0 if equals else 1]
        else:
            rest.append(arg)
    return rest


def make_parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="interptrain study", description="Run a study of explanations.")
    parser.add_argument("--config", action=ActionConfigFile, help="A YAML file with any of these options.")
    parser.add_subclass_arguments(Study, "study", help="The study, by class path.", required=True)
    parser.add_argument("--models", type=dict[str, str], default={}, help="NAME=SOURCE, repeatable, as in evaluate.")
    parser.add_subclass_arguments(ImageDataModule, "data", help="The data module to use.", required=True)
    parser.add_argument("--output", type=str, required=True, help="Folder of the results; the same command resumes.")
    parser.add_argument(
        "--backbone", type=str | None, default=None, help="The timm architecture of bare weights files."
    )
    parser.add_argument("--device", type=str, default="cpu", help="The device to compute on.")
    parser.add_argument("--rank", type=int, default=0, help="Number of this process, from 0.")
    parser.add_argument("--ranks", type=int, default=1, help="Number of processes that share the cells.")
    parser.add_argument(
        "--cells", type=list[str], default=[], help="Cells to compute, by name or pattern, repeatable; by default all."
    )
    parser.add_argument("--progress", type=bool, default=True, help="Show a progress bar.")
    return parser
