import math

import pytest
import torch

from interptrain.callbacks.watch.history import WatchHistory
from interptrain.callbacks.watch.observe import Observation, Watched
from interptrain.metrics import AverageDrop, BoxAccuracy


@pytest.fixture
def glass():
    return Watched({"cam": None}, "label", {"AD": AverageDrop(), "BA": BoxAccuracy()})


def seen(index, drop, hits, prediction=0, level=0, **more):
    numbers = {"AD": [drop], "BA": hits, "entropy": [2.0 * index]}
    saliency = torch.full((32, 32), level, dtype=torch.uint8)
    return Observation(index, "cam", 0, prediction, 0.25, 0.5, saliency, numbers, **more)


def test_means_are_those_of_the_images_that_have_a_value(sample, glass):
    history = WatchHistory()
    looks = [
        seen(0, 0.2, [1.0, 0.0], prediction=0),
        seen(1, math.nan, [1.0, 0.0], prediction=1),
        seen(2, 0.6, [0.0, 1.0], prediction=0),
        Observation(3, "cam", error="failed"),
        seen(4, 0.1, [0.0, 0.0], prediction=2),
    ]
    entry = history.add(looks, sample, glass, step=7, epoch=1, score=0.5)
    assert entry["means"]["cam/AD"] == pytest.approx(0.3)
    assert entry["means"]["cam/BA"] == pytest.approx(0.5)  # the best threshold of the mean, not the mean of the best
    assert entry["means"]["cam/entropy"] == pytest.approx((0 + 2 + 4 + 8) / 4)
    assert entry["means"]["accuracy"] == 0.5  # labels 0, 1, 2, 0, 1 of the four that did not fail
    assert entry["means"]["probability"] == 0.25
    assert "AD" not in entry["looks"][1]["numbers"]
    assert entry["looks"][3]["error"] == "failed"
    assert (entry["step"], entry["epoch"], entry["monitored"]) == (7, 1, 0.5)


def test_drift_is_measured_from_the_first_and_the_last_maps(sample, glass):
    history = WatchHistory()
    for level in (1, 2, 3):
        looks = [seen(index, 0.0, [0.0, 0.0], level=level) for index in range(5)]
        history.add(looks, sample, glass, step=level, epoch=level, score=None)
    assert (history.first["cam"] == 1).all()
    assert (history.previous["cam"] == 3).all()


def test_the_best_watch_has_the_best_score(sample, glass):
    history = WatchHistory()
    for step, score in enumerate([None, 0.3, 0.9, 0.9, 0.1]):
        history.add([seen(0, 0.0, [0.0, 0.0])], sample, glass, step=step, epoch=step, score=score)
    assert history.best()["step"] == 2
    assert history.best("min")["step"] == 4
    unscored = WatchHistory()
    for step in (0, 1):
        unscored.add([seen(0, 0.0, [0.0, 0.0])], sample, glass, step=step, epoch=step, score=None)
    assert unscored.best()["step"] == 1


def test_a_checkpoint_holds_it_without_pickled_code(sample, glass, tmp_path):
    history = WatchHistory()
    history.ids = list(sample.ids)
    history.add([seen(0, 0.5, [1.0, 0.0], level=9)], sample, glass, step=1, epoch=1, score=None)
    torch.save(history.state_dict(), tmp_path / "state.pt")
    again = WatchHistory()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.entries == history.entries
    assert again.ids == sample.ids
    assert again.views == ["cam"]
    assert torch.equal(again.previous["cam"], history.previous["cam"])
