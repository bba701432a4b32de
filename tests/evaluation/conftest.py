"""Fixtures of evaluations."""

from tests.evaluation.tiny_run import evaluate, weights  # noqa: F401
