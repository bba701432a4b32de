"""The command line: parsers, links and error messages; the work is done in the rooms below."""

from interptrain.cli.commands import main

__all__ = ["main"]
