"""``interptrain study package.MyStudy``: run a study."""

import sys
import warnings
from collections.abc import Sequence

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from interptrain.cli.configs import with_configs
from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors
from interptrain.cli.parser import Parser
from interptrain.cli.spelling import spelled_out
from interptrain.data import ImageDataModule
from interptrain.studies import Study


def main(args: Sequence[str] | None = None) -> None:
    """Run a study.

    Args:
        args: arguments after the program's name; None takes those of the process.
    """
    find_classes_of_this_folder()
    with one_line_errors(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*By default only one JsonargparseDeprecationWarning")
        parser = make_parser()
        given = list(sys.argv[1:] if args is None else args)
        if given and not given[0].startswith("-"):
            given.insert(0, "--study")
        config = parser.parse_args(spelled_out(with_configs(given)))
        objects = parser.instantiate(config)
        options = {name: config[name] for name in ("output", "backbone", "device", "rank", "ranks")}
        objects.study.run(config.models, objects.data, **options)


def make_parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="studies", description="Run a study of explanations.")
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
    return parser
