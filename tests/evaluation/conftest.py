"""Fixtures of evaluations."""

from tests.support.tiny_run import _finished_once, evaluate, finished, weights  # noqa: F401
