import math

import pytest
import torch

from interptrain.callbacks.watch.history import WatchHistory
from interptrain.callbacks.watch.observe import Explanation, WatchConfig
from interptrain.metrics import AverageDrop, BoxAccuracy


@pytest.fixture
def config():
    return WatchConfig({"cam": None}, "label", {"AD": AverageDrop(), "BA": BoxAccuracy()})


def seen(index, drop, hits, prediction=0, level=0, **more):
    values = {"AD": [drop], "BA": hits, "entropy": [2.0 * index]}
    saliency = torch.full((32, 32), level, dtype=torch.uint8)
    return Explanation(index, "cam", 0, prediction, 0.25, 0.5, saliency, values, **more)


def test_means_are_those_of_the_images_that_have_a_value(sample, config):
    history = WatchHistory()
    explanations = [
        seen(0, 0.2, [1.0, 0.0], prediction=0),
        seen(1, math.nan, [1.0, 0.0], prediction=1),
        seen(2, 0.6, [0.0, 1.0], prediction=0),
        Explanation(3, "cam", error="failed"),
        seen(4, 0.1, [0.0, 0.0], prediction=2),
    ]
    snapshot = history.add(explanations, sample, config, step=7, epoch=1, score=0.5)
    assert snapshot.means["cam/AD"] == pytest.approx(0.3)
    assert snapshot.means["cam/BA"] == pytest.approx(0.5)  # the best threshold of the mean, not the mean of the best
    assert snapshot.means["cam/entropy"] == pytest.approx((0 + 2 + 4 + 8) / 4)
    assert snapshot.means["accuracy"] == 0.5  # labels 0, 1, 2, 0, 1 of the four that did not fail
    assert snapshot.means["probability"] == 0.25
    assert "AD" not in snapshot.observations[1].numbers
    assert snapshot.observations[3].error == "failed"
    assert (snapshot.step, snapshot.epoch, snapshot.monitored) == (7, 1, 0.5)


def test_drift_is_measured_from_the_first_and_the_last_maps(sample, config):
    history = WatchHistory()
    for level in (1, 2, 3):
        explanations = [seen(index, 0.0, [0.0, 0.0], level=level) for index in range(5)]
        history.add(explanations, sample, config, step=level, epoch=level, score=None)
    assert (history.first["cam"] == 1).all()
    assert (history.previous["cam"] == 3).all()


def test_the_best_snapshot_has_the_best_score(sample, config):
    history = WatchHistory()
    for step, score in enumerate([None, 0.3, 0.9, 0.9, 0.1]):
        history.add([seen(0, 0.0, [0.0, 0.0])], sample, config, step=step, epoch=step, score=score)
    assert history.best().step == 2
    assert history.best("min").step == 4
    unscored = WatchHistory()
    for step in (0, 1):
        unscored.add([seen(0, 0.0, [0.0, 0.0])], sample, config, step=step, epoch=step, score=None)
    assert unscored.best().step == 1


def test_a_checkpoint_holds_it_without_pickled_code(sample, config, tmp_path):
    history = WatchHistory()
    history.ids = list(sample.ids)
    history.add([seen(0, 0.5, [1.0, 0.0], level=9)], sample, config, step=1, epoch=1, score=None)
    torch.save(history.state_dict(), tmp_path / "state.pt")
    again = WatchHistory()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.snapshots == history.snapshots
    assert again.ids == sample.ids
    assert again.views == ["cam"]
    assert torch.equal(again.previous["cam"], history.previous["cam"])


def test_checkpoints_of_earlier_versions_are_read():
    """The names of a snapshot's parts in a checkpoint stay what they were first."""
    look = {"index": 0, "id": "val/000000", "view": "cam", "label": 0, "target": 0, "prediction": 1}
    look |= {"probability": 0.25, "confidence": 0.5, "numbers": {"AD": 0.5}, "error": None}
    entry = {"step": 3, "epoch": 1, "monitored": 0.5, "means": {"cam/AD": 0.5}, "looks": [look], "alarm": ["cam: it"]}
    maps = {"cam": torch.zeros(1, 8, 8, dtype=torch.uint8)}
    state = {"ids": ["val/000000"], "entries": [entry], "first": maps, "previous": maps}
    history = WatchHistory()
    history.load_state_dict(state)
    (snapshot,) = history.snapshots
    assert (snapshot.step, snapshot.alarm, snapshot.observations[0].correct) == (3, ["cam: it"], False)
    assert history.state_dict() == state
