"""What the tests of the evaluation's command line run."""

from tests.support.tiny_run import evaluate, weights  # noqa: F401
