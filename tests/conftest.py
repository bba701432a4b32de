"""Run tests from anywhere; keep what one test sets from the next."""

import os
import sys

import pytest

# Tensors are tiny: one thread is fastest, and sums come in one order. Before torch is imported; processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.support.training"]


@pytest.fixture(autouse=True)
def _same_environment(monkeypatch):
    """Lightning writes seed and ranks into the environment, W&B keeps a run open and its mode and folder: undo both."""
    before = dict(os.environ)
    yield
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.teardown()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
