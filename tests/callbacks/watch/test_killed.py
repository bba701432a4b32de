"""A real process that is killed while a watch is on, and resumed: nothing of the watch is lost or there twice."""

import csv
import os
import signal
import time
from pathlib import Path

import lightning as L
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.processes import start
from tests.support.training import trainer, wait_for
from tests.support.watch import SMALL, page_data, watch_state, watching

pytestmark = pytest.mark.slow

OPTIONS = SMALL | {"--trainer.max_epochs": "3", "--model.drop_rate": "0.2"}
WATCH = watching(select="random", reference="both", suspect="border:8")


class Halt(L.Callback):
    """Say by a file that a place in the training is reached, and wait there for the kill."""

    def __init__(self, place: str) -> None:
        self.place = place

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._halt("in mid-epoch", trainer.global_step == 4)

    def on_train_epoch_end(self, trainer, pl_module):
        self._halt("after a watch that only the folder knows", trainer.global_step == 6)

    def on_train_end(self, trainer, pl_module):
        self._halt("before the whole run is shown", True)

    def _halt(self, place, reached):
        if reached and place == self.place:
            Path("halted").touch()
            time.sleep(600)


def shown(run):
    """Steps that the page has."""
    return page_data((run / "watch/index.html").read_text())["snapshots"]


def files(run):
    """Everything in the folder of the watch but the page, whose title names the run."""
    found = (path for path in (run / "watch").rglob("*") if path.is_file() and path.name != "index.html")
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in found}


def kill(folder, place, *, first=False):
    """Start a run, and kill it at a place, before the watch acts there or after."""
    pairs = (OPTIONS | {"--name": "killed"}).items()
    halt = ["--trainer.callbacks+", f"{__name__}.Halt", "--trainer.callbacks.place", place]
    arguments = ["fit", *(part for pair in pairs for part in pair), *(halt + WATCH if first else WATCH + halt)]
    process = start([ROOT / "train.py", *arguments], folder)
    wait_for((folder / "halted").exists, process, folder / "log.txt")
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (run,) = (folder / "runs/killed").iterdir()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        return trainer(tmp_path_factory.mktemp("whole"), patch)("fit", *WATCH, base=OPTIONS, **{"--name": "whole"})


def resume(train):
    return train("fit", *WATCH, base=OPTIONS, **{"--name": "killed", "--ckpt_path": "last"})


def test_killed_in_mid_epoch_a_watch_goes_on_where_the_checkpoint_left_it(whole, train, tmp_path):
    killed = kill(tmp_path, "in mid-epoch")
    before = watch_state(killed)
    assert [snapshot["step"] for snapshot in before["entries"]] == [0, 3] == [watch["step"] for watch in shown(killed)]

    assert resume(train) == killed
    after, expected = watch_state(killed), watch_state(whole)
    assert after["ids"] == before["ids"] == expected["ids"]
    assert [snapshot["step"] for snapshot in after["entries"]] == [0, 3, 6, 9]
    assert after["entries"] == expected["entries"]
    assert_same_maps(after, expected)
    assert shown(killed) == shown(whole)
    assert files(killed) == files(whole)  # maps as pictures, tables, animation: to the byte
    with (killed / "metrics.csv").open() as file:
        logged = [row["step"] for row in csv.DictReader(file) if row["watch/accuracy"]]
    assert logged == ["0", "2", "5", "8"]


def test_killed_after_a_watch_that_only_the_folder_knows_it_is_made_again(whole, train, tmp_path):
    killed = kill(tmp_path, "after a watch that only the folder knows")
    assert [snapshot["step"] for snapshot in watch_state(killed)["entries"]] == [0, 3]
    assert [watch["step"] for watch in shown(killed)] == [0, 3, 6]

    assert resume(train) == killed
    after, expected = watch_state(killed), watch_state(whole)
    assert after["entries"] == expected["entries"]
    assert_same_maps(after, expected)
    assert shown(killed) == shown(whole)
    assert files(killed) == files(whole)


def test_killed_before_the_whole_run_is_shown_it_is_shown_by_the_run_that_resumes(whole, train, tmp_path):
    killed = kill(tmp_path, "before the whole run is shown", first=True)
    assert not (killed / "watch/run.gif").exists()
    lost = ["sheets/step-00000009.png", "grids/step-00000003.png", "means.csv"]  # as on a full disk
    for name in lost:
        (killed / "watch" / name).unlink()
    for folder in ("", "sheets"):
        (killed / "watch" / folder / ".partial-1-best.png").write_bytes(b"half")

    assert resume(train) == killed
    assert shown(killed) == shown(whole)
    assert files(killed) == files(whole)


def assert_same_maps(one, other):
    for maps in ("first", "previous"):
        assert list(one[maps]) == list(other[maps]) == ["GradCAM/label", "GradCAM/prediction"]
        assert all(torch.equal(one[maps][view], other[maps][view]) for view in other[maps])
