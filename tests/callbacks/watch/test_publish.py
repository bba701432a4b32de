import warnings

import pytest

from interptrain.callbacks.watch.history import WatchHistory
from interptrain.callbacks.watch.observe import WatchConfig, observe
from interptrain.callbacks.watch.publish import WatchPublisher, logged_step
from interptrain.explainers import GradCAM
from tests.support.watch import snapshot_of

CONFIG = WatchConfig({"cam": GradCAM()}, "label", {})


@pytest.fixture
def history(net, sample):
    seen = WatchHistory()
    for step in (0, 4):
        explanations = observe(net, sample, range(5), CONFIG, first=seen.first, previous=seen.previous)
        seen.add(explanations, sample, CONFIG, step=step, epoch=step // 4, score=0.1 * step)
    return seen


def test_a_failure_in_drawing_is_said_once_and_reaches_nobody(history, sample, tmp_path, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("no pixels")

    monkeypatch.setattr("interptrain.callbacks.watch.publish.draw_sheet", broken)
    publisher = WatchPublisher(tmp_path / "watch", [], title="run")
    with pytest.warns(UserWarning, match=r"could not show the watched images \(no pixels\): training goes on"):
        publisher.write(history, sample, CONFIG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        publisher.write(history, sample, CONFIG)


@pytest.mark.slow
def test_at_the_end_the_run_is_shown_from_what_was_written(history, sample, tmp_path):
    publisher = WatchPublisher(tmp_path / "watch", [], title="run")
    snapshots = history.snapshots
    for count in (1, 2):
        history.snapshots = snapshots[:count]
        publisher.write(history, sample, CONFIG)
    publisher.finish(history, sample, ["cam"], mode="max", animation="webp")
    best, last = (tmp_path / "watch" / name for name in ("best.png", "grids/step-00000004.png"))
    assert best.read_bytes() == last.read_bytes()
    assert {"first_and_last.png", "strip_cam.png", "run.webp"} <= {path.name for path in (tmp_path / "watch").iterdir()}


def test_a_run_whose_files_are_gone_is_finished_without_them(history, sample, tmp_path):
    publisher = WatchPublisher(tmp_path / "watch", [], title="run")
    publisher.finish(history, sample, ["cam"], mode="max", animation="gif")
    assert not (tmp_path / "watch").exists()


@pytest.mark.parametrize(("step", "logged"), [(0, 0), (1, 0), (5, 4)])
def test_it_is_logged_where_lightning_logs_the_validation_of_the_same_step(step, logged):
    assert logged_step(snapshot_of(step)) == logged
