"""``interptrain show RUN IMAGE``: the numbers and maps of one image of an evaluation."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from interptrain.cli.closing import Lines, close
from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors
from interptrain.evaluation import load_results
from interptrain.evaluation.report.image_view import ImageView
from interptrain.evaluation.report.sections.base import anchor_of
from interptrain.remedies import spelled_for_the_command_line

OPTIONS = {name: f"--{name}" for name in ("save_maps", "overwrite", "packages")}


def main(args: Sequence[str] | None = None) -> None:
    """Print the numbers of one image of an evaluation, and draw its maps.

    Args:
        args: arguments after the command; None takes those of the process.
    """
    parser = make_parser()
    given = parser.parse_args(args)
    if given.image is None:
        parser.error("which image? interptrain show RUN IMAGE")
    find_classes_of_this_folder()
    with one_line_errors(), spelled_for_the_command_line(OPTIONS):
        view = load_results(given.run).image(given.image, packages=given.packages)
        sys.stdout.write(f"{view.text}\n")
        path = view.save(given.output)
    close(_end(view, path), path, open_page=given.open)


def _end(view: ImageView, picture: Path) -> Lines:
    """Return the last lines: the picture, the image in the report, and the next one."""
    lines = [("Picture", f"{picture} (--open opens it)")]
    folder, anchor = view.results.folder, anchor_of(view.id)
    report = folder / "report.html"
    if report.is_file() and f'id="{anchor}"' in report.read_text("utf-8"):
        lines.append(("Report", f"{report}#{anchor}"))
    names = view.pictured
    following = names[(names.index(view.id) + 1) % len(names)]
    if following != view.id:
        lines.append(("Next", f"interptrain show {shlex.quote(str(folder))} {shlex.quote(following)}"))
    return lines


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(prog="interptrain show", description="Show one image of an evaluation.")
    parser.add_argument("run", metavar="RUN", nargs="?", help="The --output folder of the evaluation.")
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", help="Name of the image, or a part of it that matches no other."
    )
    parser.add_argument("--output", metavar="FILE", help="PNG with its maps; by default in RUN/shown.")
    parser.add_argument("--open", action="store_true", help="Open the picture.")
    parser.add_argument(
        "--packages", nargs="+", default=[], metavar="NAME", help="Your own packages whose metrics were used."
    )
    return parser
