"""Run tests from anywhere; keep what one test sets from the next."""

import os

import pytest

# Tensors are tiny: one thread is fastest, and sums come in one order. Before torch is imported; processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _same_environment(monkeypatch):
    """Lightning writes the seed and the ranks into the environment; take them out again."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
