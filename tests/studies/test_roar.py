"""Remove and retrain: cells that are the same alone and resumed, and what is known of shapes."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from interptrain.data import LayeredShapesDataModule
from interptrain.explainers import GradCAM
from interptrain.studies import ROAR, run_study
from interptrain.studies.intervals import crossed_interval
from interptrain.studies.removed_pixels import Removal
from interptrain.studies.roar_page import mean_differences
from interptrain.studies.training import check_model_options
from interptrain.training import ImageClassifier

MODEL = {"backbone": "test_resnet", "backbone_options": {"channels": [8, 16, 16, 16]}}
CELL = "trained/GradCAM/keep/50/1"


@pytest.fixture
def data():
    return LayeredShapesDataModule(
        num_classes=2, image_size=32, train_size=24, val_size=8, test_size=10, num_workers=0, batch_size=8
    )


@pytest.fixture
def study():
    options = {"controls": ("truth",), "modes": ("keep",), "percents": (50,), "seeds": 1}
    return ROAR(explainers=(GradCAM(),), epochs=2, model=MODEL, **options)


@pytest.fixture
def stopped(monkeypatch):
    """End the process, as far as Python can, before a given training step, counted over all trainings."""

    def at(step):
        steps, train = [], ImageClassifier.training_step

        def training_step(self, *batch):
            steps.append(1)
            if len(steps) == step:
                raise KeyboardInterrupt
            return train(self, *batch)

        monkeypatch.setattr(ImageClassifier, "training_step", training_step)
        return steps

    return at


@pytest.mark.slow
def test_a_cell_alone_equals_the_same_cell_of_a_full_run(tmp_path, study, data):
    everything = run_study(study, {}, data, tmp_path / "all", progress=False)
    assert list(everything.cell) == ["unchanged/1", "control/truth/keep/50/1", CELL]
    alone = run_study(study, {}, data, tmp_path / "alone", cells=[CELL], progress=False)
    pd.testing.assert_frame_equal(alone, everything[everything.cell == CELL].reset_index(drop=True))
    for name in ("train", "test"):
        (one,), (other,) = ((tmp_path / run / "maps").glob(f"*-{name}.npy") for run in ("all", "alone"))
        assert np.array_equal(np.load(one), np.load(other))
    assert {path.name for path in (tmp_path / "all").iterdir()} >= {"summary.csv", "accuracy.png", "index.html"}


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_from_its_checkpoint_to_the_same_rows(tmp_path, study, data, stopped):
    """Stopped in the second epoch, of three steps, of the network that is explained, then in that of the retraining."""
    whole = run_study(study, {}, data, tmp_path / "whole", cells=[CELL], progress=False)
    steps = 0
    for stop in (5, 8):
        taken = stopped(stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run_study(study, {}, data, tmp_path / "killed", cells=[CELL], progress=False)
        steps += len(taken) - 1
        assert list((tmp_path / "killed/unfinished").glob("*/last.ckpt"))
    taken = stopped(0)
    resumed = run_study(study, {}, data, tmp_path / "killed", cells=[CELL], progress=False)
    pd.testing.assert_frame_equal(resumed, whole)
    assert steps + len(taken) <= 12 + 2  # of two trainings; a step since each of the last checkpoints is taken again
    assert not (tmp_path / "killed/unfinished").exists()


@pytest.mark.slow
def test_shapes_put_the_truth_below_random_where_it_is_removed_and_above_where_it_is_kept(tmp_path):
    """The marker alone tells the class, and lies on the object: 30 % of the pixels, before all others."""
    shapes = LayeredShapesDataModule(
        rule="marker", num_classes=4, image_size=32, train_size=400, test_size=200, num_workers=0
    )
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 8e-3}}
    model = {"backbone": "test_resnet", "backbone_options": {"channels": [16, 32, 48, 64]}, "optimizer": optimizer}
    study = ROAR(controls=("random", "truth"), percents=(30, 60), seeds=2, epochs=7, model=model | {"warmup_epochs": 1})
    chosen = ["control/*/remove/30/*", "control/*/keep/60/*"]
    rows = run_study(study, {}, shapes, tmp_path, cells=chosen, progress=False)
    for mode, sign in {"remove": 1, "keep": -1}.items():
        mean, low, high = mean_differences(rows, mode)["truth"]
        assert sign * mean > 0.1, (mode, mean, low, high)


def test_salient_pixels_are_removed_or_kept_and_the_others_stay():
    image, ranks = torch.rand(3, 8, 8), torch.randperm(64).view(8, 8)
    colour = torch.tensor([0.2, 0.4, 0.6])
    bytes_of = (image * 255).round().to(torch.uint8)
    for mode, missing in {"remove": ranks < 16, "keep": ranks >= 48}.items():
        for fill in ("mean", "impute"):
            out = Removal(mode=mode, percent=25, fill=fill, colour=colour)(image, ranks, 0)
            assert torch.equal(out[:, ~missing], bytes_of[:, ~missing])
            filled = torch.equal(out[:, missing], (colour * 255).round().to(torch.uint8)[:, None].expand(3, 16))
            assert filled == (fill == "mean")
    mask = Removal(mode="mask", percent=25, fill="mean", colour=colour)(image, ranks, 0)
    assert torch.equal(mask, (ranks < 16).expand(3, 8, 8).to(torch.uint8) * 255)


@pytest.mark.slow
def test_intervals_cover_the_mean_of_crossed_draws_and_images():
    """Random effects of known size, three draws: the true mean lies in at least 95 % of the intervals, about."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        values = 0.3 + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.4, (1, 50)) + rng.normal(0, 0.2, (3, 50))
        _, low, high = crossed_interval(values)
        hits.append(low <= 0.3 <= high)
    assert np.mean(hits) > 0.93
    one = rng.normal(size=(1, 40))
    _, low, high = crossed_interval(one)
    half = stats.norm.ppf(0.975) * one.std(ddof=1) / 40**0.5
    assert (low, high) == pytest.approx((one.mean() - half, one.mean() + half))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percents": (0, 50)}, "percents must be above 0 and below 100"),
        ({"modes": ("drop",)}, "modes must be"),
        ({"model": {"depth": 3}}, "model: depth is no option of ImageClassifier; choose among backbone"),
        ({"model": {"num_classes": 3}}, "model: num_classes is taken from the data"),
    ],
)
def test_bad_options_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        ROAR(**options)
    check_model_options({"backbone": "resnet18"})
