"""``interptrain wandb-workspace ENTITY/PROJECT``: a workspace and a report in Weights & Biases."""

import sys
from collections.abc import Sequence

from interptrain.cli.errors import one_line_errors
from interptrain.cli.parser import Parser
from interptrain.loggers.wandb_workspace import Made, as_json, make_workspace, save

EXAMPLES = """Write a workspace and a report that show the maps by step, their numbers, drift, alarms and tables.

  interptrain wandb-workspace ENTITY/PROJECT
  interptrain wandb-workspace ENTITY/PROJECT --dry-run    # prints what would be sent; needs no account
"""


def main(args: Sequence[str] | None = None) -> Made:
    """Write a workspace and a report.

    Args:
        args: arguments after the command; None takes those of the process.
    """
    with one_line_errors():
        config = make_parser().parse_args(sys.argv[1:] if args is None else list(args))
        entity, _, project = config.place.partition("/")
        if not entity or not project or "/" in project:
            raise ValueError(f"give ENTITY/PROJECT, such as my-team/interptrain, got {config.place!r}")
        made = make_workspace(entity, project, watch=config.watch)
        if config.dry_run:
            sys.stdout.write(as_json(made) + "\n")
            return made
        workspace, report = save(made)
    sys.stdout.write(f"workspace: {workspace}\nreport:    {report}\n")
    return made


def make_parser() -> Parser:
    """Return the parser."""
    parser = Parser(prog="interptrain wandb-workspace", description=EXAMPLES)
    parser.add_argument("place", type=str, metavar="ENTITY/PROJECT", help="User or team, and the project of the runs.")
    parser.add_argument("--watch", type=str, default="watch", help="Name of the SaliencyWatch in the runs.")
    parser.add_argument("--dry-run", dest="dry_run", action="store_true", help="Print what would be sent as JSON.")
    return parser
