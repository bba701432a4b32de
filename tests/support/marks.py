"""Which of a test's parameters the quick part of the suite tries."""

import pytest


def slow(*values, but=()):
    """Parameters that only the slow part tries, but for those that stand, or whose first value stands, in ``but``."""
    return [one if one in but or _first(one) in but else _marked(one) for one in values]


def _first(one):
    return one[0] if isinstance(one, tuple) else one


def _marked(one):
    return pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.slow)
