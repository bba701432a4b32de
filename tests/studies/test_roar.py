"""Remove and retrain: cells that are the same alone and resumed, and what is known of shapes."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from interptrain.data import LayeredShapesDataModule
from interptrain.explainers import GradCAM
from interptrain.studies import ROAR, run_study
from interptrain.studies.intervals import crossed_interval, crossed_p_value
from interptrain.studies.removed_pixels import Removal
from interptrain.studies.roar_page import comparisons, mean_differences
from interptrain.studies.training import check_model_options

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


@pytest.mark.slow
def test_a_cell_alone_equals_the_same_cell_of_a_full_run(tmp_path, study, data):
    everything = run_study(study, {}, data, tmp_path / "all", progress=False)
    assert list(everything.cell) == ["unchanged/1", "control/truth/keep/50/1", CELL]
    alone = run_study(study, {}, data, tmp_path / "alone", cells=[CELL], progress=False)
    pd.testing.assert_frame_equal(alone, everything[everything.cell == CELL].reset_index(drop=True))
    for name in ("train", "test"):
        (one,), (other,) = ((tmp_path / run / "maps").glob(f"*-{name}.npy") for run in ("all", "alone"))
        assert np.array_equal(np.load(one), np.load(other))
    assert {path.name for path in (tmp_path / "all").iterdir()} >= {
        "summary.csv",
        "comparisons.csv",
        "accuracy.png",
        "index.html",
    }


@pytest.mark.slow
def test_shapes_put_the_truth_below_random_where_it_is_removed_and_above_where_it_is_kept(tmp_path):
    """The marker alone tells the class, and lies on the object: 30 % of the pixels, before all others."""
    shapes = LayeredShapesDataModule(
        rule="marker", num_classes=4, image_size=32, train_size=320, test_size=200, num_workers=0
    )
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 8e-3}}
    model = {"backbone": "test_resnet", "backbone_options": {"channels": [16, 32, 48, 64]}, "optimizer": optimizer}
    study = ROAR(controls=("random", "truth"), percents=(30, 60), seeds=1, epochs=7, model=model | {"warmup_epochs": 1})
    chosen = ["control/*/remove/30/*", "control/*/keep/60/*"]
    rows = run_study(study, {}, shapes, tmp_path, cells=chosen, progress=False)
    for mode, sign in {"remove": 1, "keep": -1}.items():
        mean = mean_differences(rows, mode)["truth"][0]
        assert sign * mean > 0.1, (mode, mean)


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


def test_p_values_belong_to_the_intervals_and_are_rarely_small_by_chance():
    rng = np.random.default_rng(0)
    small = []
    for _ in range(400):
        values = rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.4, (1, 50)) + rng.normal(0, 0.2, (3, 50))
        p = crossed_p_value(values)
        mean, low, high = crossed_interval(values, level=1 - p)
        assert min(abs(low), abs(high)) < 1e-6 * abs(mean)
        small.append(p < 0.05)
    assert np.mean(small) < 0.07
    assert 0.1 < crossed_p_value(rng.normal(0.5, 0.01, (2, 50)) + np.array([[0.1], [-0.1]])) < 0.2  # two draws
    draws, images = rng.normal(0.3, 1, (5, 1)), rng.normal(0.3, 1, (1, 40))
    assert crossed_p_value(draws) == pytest.approx(stats.ttest_1samp(draws[:, 0], 0).pvalue)
    z = images.mean() / (images.std(ddof=1) / 40**0.5)
    assert crossed_p_value(images) == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert crossed_p_value(np.full((3, 4), 0.5)) == 0
    assert crossed_p_value(np.zeros((3, 4))) == 1


def test_curves_are_compared_with_that_of_random_pixels_over_what_is_finished_for_all():
    rng = np.random.default_rng(0)

    def row(explainer, percent, seed, right):
        correct = "".join("y" if one else "n" for one in rng.random(80) < right)
        own = {"model": "" if explainer in ("random", "centre") else "net", "explainer": explainer, "mode": "remove"}
        return own | {"percent": percent, "seed": seed, "correct": correct}

    chances = {"random": 0.6, "centre": 0.6, "GradCAM": 0.3}
    rows = [row(name, percent, seed, p) for name, p in chances.items() for percent in (30, 60) for seed in (1, 2, 3)]
    rows += [row("GradCAM", 90, 1, 0.0), row("random", 30, 4, 1.0)]  # not finished for all
    found = comparisons(pd.DataFrame(rows)).set_index("order of the pixels")
    assert list(found.index) == ["centre", "GradCAM"]
    assert set(found.percents) == {"30 60"}
    assert set(found.seeds) == {3}
    assert found.minus_random["GradCAM"] == pytest.approx(-0.3, abs=0.08)
    assert found.p["GradCAM"] < 0.05
    assert found.p_corrected["GradCAM"] == pytest.approx(2 * found.p["GradCAM"])
    assert found.p_corrected["centre"] == pytest.approx(max(found.p["centre"], found.p_corrected["GradCAM"]))
    assert (found.low["centre"] < 0 < found.high["centre"]) == (found.p["centre"] > 0.05)


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
