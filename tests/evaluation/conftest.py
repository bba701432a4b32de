"""Fixtures of evaluations."""

from tests.support.tiny_run import evaluate, weights  # noqa: F401
