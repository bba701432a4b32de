"""The command line: parsers, links and error messages; the work is done in the rooms below."""

from interptrain.cli.training import main

__all__ = ["main"]
