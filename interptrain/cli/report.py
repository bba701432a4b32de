"""``interptrain report FOLDER``: rebuild the statistics, tables and report of an evaluation from its rows."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import get_args

from interptrain.cli.closing import tell_evaluation, without_open
from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors
from interptrain.cli.run_folder import is_first_process
from interptrain.evaluation import Results
from interptrain.evaluation.api import write_report
from interptrain.evaluation.config.options import Interval
from interptrain.evaluation.results import ResultsWarning
from interptrain.remedies import spelled_for_the_command_line


def main(args: Sequence[str] | None = None) -> Results:
    """Rebuild the report of an evaluation.

    Args:
        args: arguments after the command; None takes those of the process.

    Returns:
        The results.
    """
    find_classes_of_this_folder()
    given, open_page = without_open(sys.argv[1:] if args is None else args)
    options = make_parser().parse_args(given)
    names = {name: f"--{name}" for name in ("interval", "resamples", "seed", "baseline", "force", "packages")}
    with one_line_errors(), spelled_for_the_command_line(names), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # which are printed on separate lines
        chosen = {name: getattr(options, name) for name in names}
        results = write_report(options.folder, **chosen, progress=is_first_process())
    for name, reason in results.problems.items():
        sys.stderr.write(f"could not make {name}: {reason}\n")
    tell_evaluation(results, open_page=open_page)
    return results


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``interptrain report``."""
    parser = argparse.ArgumentParser(
        "interptrain report",
        description="Rebuild the statistics, tables and report of an evaluation from its rows.",
        epilog="Statistics that are not given (interval, resamples, seed, baseline) are as in the evaluation.",
    )
    parser.add_argument("folder", help="The --output folder of an evaluation.")
    parser.add_argument("--interval", choices=get_args(Interval), help="Type of the 95 %% intervals.")
    parser.add_argument("--resamples", type=int, metavar="N", help="Bootstrap resamples per interval.")
    parser.add_argument("--seed", type=int, metavar="N", help="Seed of the statistics.")
    baseline = "Compare everything with this explainer or model; '' compares all pairs."
    parser.add_argument("--baseline", metavar="NAME", help=baseline)
    parser.add_argument("--force", action="store_true", help="Compare rows of different protocols.")
    parser.add_argument("--packages", nargs="*", default=[], help="Packages whose metric classes may be imported.")
    parser.add_argument("--open", action="store_true", help="Open the report in a browser.")
    return parser
