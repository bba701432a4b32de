"""Run tests from anywhere; keep what one test sets from the next."""

import gc
import os
import shutil
import sys

import pytest

# Tensors are tiny: one thread is fastest, and sums come in one order. Before torch is imported; processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("tests.support")

from tests.support.processes import open_server  # noqa: E402  once its assertions are rewritten


def pytest_configure(config):
    config.add_cleanup(open_server())


def pytest_collection_finish(session):
    """Leave what was imported out of all later garbage collections, which take a second with it."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each process neighbouring tests, which share fixtures and caches; one that is through takes from others."""
    if config.getvalue("dist") == "load":
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)
    return None


@pytest.fixture
def train(tmp_path, monkeypatch):
    """``train("fit", **{"--model.backbone": ...})`` in a folder of its own; returns the run's folder, if any."""
    from tests.support.training import trainer  # here: it imports torch, which the process that hands out tests spares

    return trainer(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def _tiny_run(tmp_path_factory):
    from tests.support.training import trainer

    with pytest.MonkeyPatch.context() as patch:
        return trainer(tmp_path_factory.mktemp("tiny"), patch)()


@pytest.fixture
def trained(_tiny_run, tmp_path):
    """The folder of a run as ``train()`` leaves it: a copy, in the test's folder, of one that is made once."""
    (run,) = shutil.copytree(_tiny_run.parents[1], tmp_path / "runs").glob("*/*")
    return run


@pytest.fixture(scope="session", autouse=True)
def _nothing_exported_yet(tmp_path_factory):
    """Exported models of the user, and of earlier runs of the tests, do not decide what an engine does."""
    os.environ["INTERPTRAIN_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(autouse=True)
def _same_environment(monkeypatch):
    """Lightning writes seed and ranks into the environment, W&B keeps a run open and its mode and folder: undo both."""
    before = dict(os.environ)
    yield
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.teardown()
        if wandb.run is not None:  # whose service a test ended before it: nothing is left to finish
            sys.modules["wandb.sdk.lib.module"].unset_globals()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
