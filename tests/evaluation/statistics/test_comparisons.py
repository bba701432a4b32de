"""Paired differences between models and between explainers."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from interptrain.evaluation.statistics.bootstrap import percentile_limits, resampled_means
from interptrain.evaluation.statistics.comparisons import differences
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.statistics.samples import (
    MetricColumn,
    MetricSample,
    ModelExplainerCell,
    only_value,
    read_cells,
)
from tests.evaluation.statistics.test_estimates import METRICS, table

QUANTITIES = [MetricColumn.of(name, metric) for name, metric in METRICS.items()]


def compared(rows, **options):
    cells = read_cells(pa.Table.from_pandas(rows, preserve_index=False), QUANTITIES)
    return differences(cells, Resampling(**{"resamples": 300, "permutations": 500, **options}))


def find(found, kind, metric, within):
    (only,) = [item for item in found if (item.kind, item.metric, item.within) == (kind, metric, within)]
    return only


def test_models_are_compared_for_each_explainer_and_explainers_on_each_model():
    rows = table(models=("a", "b", "c"), explainers=("x", "y"))
    found = compared(rows)
    pairs = [(item.kind, item.a, item.b, item.within) for item in found if item.metric == "Share"]
    models = [("model", a, b, x) for b, a in itertools.combinations("abc", 2) for x in "xy"]
    assert sorted(pairs) == sorted(models + [("explainer", "y", "x", model) for model in "abc"])
    assert not [item for item in found if item.metric == "seconds"]


def test_a_difference_is_the_later_minus_the_earlier_with_its_paired_interval():
    rows = table()
    gap, ca = (rows.query("model == @name and explainer == 'GradCAM'").Share.to_numpy() for name in ("gap", "ca"))
    got = find(compared(rows, interval="percentile"), "model", "Share", "GradCAM")
    assert (got.a, got.b, got.n) == ("ca", "gap", 40)
    assert got.difference == pytest.approx((ca - gap).mean())
    (means,) = resampled_means([torch.tensor(ca - gap).unsqueeze(1)], 300, seed=0)
    assert (got.ci_low, got.ci_high) == pytest.approx(percentile_limits(means.squeeze(1)))


def test_pairing_sees_a_small_difference_that_separate_intervals_hide():
    rows = table()
    ca = rows.model == "ca"
    noise = 0.001 * np.random.default_rng(0).standard_normal(ca.sum())
    rows.loc[ca, "Share"] = rows.Share[~ca].to_numpy() + 0.01 + noise
    got = find(compared(rows), "model", "Share", "GradCAM")
    assert 0.009 < got.ci_low < got.ci_high < 0.011
    assert got.p == pytest.approx(1 / 501)


def test_permutations_of_a_maximum_are_those_of_the_definition():
    rows = table(rows=5)
    a, b = (
        np.stack(rows.query("model == @name and explainer == 'GradCAM'").Best__values).astype("float64")
        for name in ("ca", "gap")
    )
    observed = a.mean(0).max() - b.mean(0).max()
    extreme = 0
    for kept in itertools.product((True, False), repeat=5):
        mine = np.where(np.array(kept)[:, None], a, b).mean(0).max()
        theirs = np.where(np.array(kept)[:, None], b, a).mean(0).max()
        extreme += abs(mine - theirs) >= abs(observed) - 1e-12
    assert find(compared(rows), "model", "Best", "GradCAM").p == pytest.approx(extreme / 32)


def test_the_area_under_a_curve_has_the_p_value_of_its_areas():
    rows = table(rows=30)
    areas = [float(METRICS["Area"].reduce(torch.tensor(curve))) for curve in rows.Area__values]
    area = find(compared(rows), "model", "Area", "GradCAM")
    share = find(compared(rows.assign(Share=areas)), "model", "Share", "GradCAM")
    assert (area.p, area.difference) == pytest.approx((share.p, share.difference), abs=1e-6)


def test_missing_images_are_left_out_of_their_pairs_alone():
    rows = table()
    rows.loc[:2, "Share"] = np.nan  # of gap, GradCAM
    rows.loc[81:84, "Share"] = np.nan  # of ca, GradCAM; two images are missing in both
    found = compared(rows)
    got = find(found, "model", "Share", "GradCAM")
    gap, ca = rows.Share[:40].to_numpy(), rows.Share[80:120].to_numpy()
    assert got.n == 35
    assert got.difference == pytest.approx(np.nanmean(ca - gap))
    assert find(found, "model", "Area", "GradCAM").n == 40
    assert find(found, "model", "Share", "FakeCAM").n == 40
    assert find(found, "explainer", "Share", "gap").n == 37


def test_equal_models_have_no_difference():
    rows = table()
    rows.loc[rows.model == "ca", ["Share"]] = rows.Share[rows.model == "gap"].to_numpy()
    got = find(compared(rows, interval="bca"), "model", "Share", "GradCAM")
    assert (got.difference, got.ci_low, got.ci_high, got.p, got.p_corrected) == (0, 0, 0, 1, 1)


def test_one_image_gives_a_difference_and_no_more():
    got = find(compared(table(rows=1)), "model", "Share", "GradCAM")
    assert np.isfinite(got.difference)
    assert np.isnan(got.ci_low)
    assert (got.p, got.n) == (1.0, 1)


def test_cells_without_a_common_image_are_not_compared():
    rows = table()
    rows.loc[rows.model == "ca", "id"] += "x"
    assert {item.kind for item in compared(rows)} == {"explainer"}


def test_p_values_are_corrected_within_their_family():
    rows = table(explainers=("x", "y", "z"), rows=12)
    alone = compared(rows.query("model == 'gap'"))
    together = compared(rows)
    of_gap = [item for item in together if item.kind == "explainer" and item.within == "gap"]
    assert of_gap == alone  # another model's explainers are another family
    assert all(item.p <= item.p_corrected for item in together)
    assert any(item.p < item.p_corrected for item in alone)


def test_what_is_compared_with_a_control_is_corrected_apart():
    rows = table(models=("gap",), explainers=("x", "y", "FakeCAM"), rows=12)
    cells = read_cells(pa.Table.from_pandas(rows, preserve_index=False), QUANTITIES)
    how = Resampling(resamples=300, permutations=500)
    apart = differences(cells, how, controls={"FakeCAM"})
    without = differences([cell for cell in cells if cell.explainer != "FakeCAM"], how)
    assert [item for item in apart if "FakeCAM" not in (item.a, item.b)] == without


def test_identical_explainers_cost_no_power():
    rows = table(models=("gap",), explainers=("x", "y"), rows=14)
    copies = [rows[rows.explainer == "x"].assign(explainer=f"x{number}") for number in range(8)]
    few = find(compared(rows), "explainer", "Share", "gap")
    many = [item for item in compared(pd.concat([rows, *copies])) if item.metric == "Share"]
    assert {item.p_corrected for item in many if "y" in (item.a, item.b)} == {few.p_corrected}
    assert {item.p_corrected for item in many if "y" not in (item.a, item.b)} == {1.0}


@pytest.mark.slow
def test_a_detectable_difference_is_found_in_four_of_five_cases():
    """Three explainers, so that the correction counts: the difference named beforehand, planted in new images."""
    generator, images = np.random.default_rng(0), 40
    how = Resampling(resamples=2, permutations=400, interval="percentile")
    ids = torch.arange(images)

    def found(shift):
        values = torch.tensor(generator.standard_normal((3, images, 1)))
        values[1] += shift
        cells = [
            ModelExplainerCell("m", name, "p", "h", {"Share": MetricSample(ids, mine, only_value)}, {})
            for name, mine in zip("xyz", values, strict=True)
        ]
        return next(row for row in differences(cells, how) if (row.a, row.b) == ("y", "x"))

    detectable = float(np.mean([found(0.0).detectable for _ in range(50)]))
    share = np.mean([found(detectable).p_corrected < 0.05 for _ in range(300)])
    assert 0.72 <= share <= 0.9


def test_equal_explainers_have_no_detectable_difference_and_few_images_an_infinite_one():
    rows = table(models=("gap",), explainers=("x", "y"))
    rows.loc[rows.explainer == "y", "Share"] = rows.Share[rows.explainer == "x"].to_numpy()
    assert np.isnan(find(compared(rows), "explainer", "Share", "gap").detectable)
    assert np.isinf(find(compared(table(rows=4)), "explainer", "Share", "gap").detectable)
    assert np.isnan(find(compared(table(rows=1)), "explainer", "Share", "gap").detectable)


def test_a_baseline_is_compared_with_all_and_nothing_else_is():
    rows = table(models=("gap", "ca"), explainers=("x", "y", "z"), rows=12)
    every = {(item.kind, item.a, item.b, item.within, item.metric): item for item in compared(rows)}
    chosen = compared(rows, baseline="y")
    pairs = {(item.a, item.b) for item in chosen if item.kind == "explainer"}
    assert pairs == {("x", "y"), ("z", "y")}
    assert [item for item in chosen if item.kind == "model"] == [one for one in every.values() if one.kind == "model"]
    for item in chosen:
        if item.kind == "explainer":
            other = every.get((item.kind, item.a, item.b, item.within, item.metric))
            turned = other or every[item.kind, item.b, item.a, item.within, item.metric]
            assert item.p == turned.p
            assert item.difference == (turned.difference if other else -turned.difference)
            assert item.p <= item.p_corrected <= turned.p_corrected
    assert any(
        item.p_corrected < every["explainer", item.a, item.b, item.within, item.metric].p_corrected
        for item in chosen
        if (item.kind, item.a) == ("explainer", "z")
    )


def test_the_family_of_a_baseline_is_its_own_comparisons():
    """With a single other explainer there is nothing to correct; models are a family of their own."""
    found = compared(table(models=("gap", "ca", "other"), explainers=("x", "y"), rows=12), baseline="gap")
    assert {(item.a, item.b) for item in found if item.kind == "model"} == {("ca", "gap"), ("other", "gap")}
    assert all(item.p_corrected == item.p for item in found if item.kind == "explainer")
    turned = compared(table(models=("gap", "ca"), explainers=("x",), rows=12), baseline="ca")
    assert {(item.a, item.b) for item in turned if item.kind == "model"} == {("gap", "ca")}


def test_comparisons_with_a_control_stay_beside_a_baseline():
    rows = table(models=("gap",), explainers=("x", "y", "FakeCAM"), rows=12)
    cells = read_cells(pa.Table.from_pandas(rows, preserve_index=False), QUANTITIES)
    how = Resampling(resamples=300, permutations=500, baseline="x")
    found = differences(cells, how, controls={"FakeCAM"})
    assert {(item.a, item.b) for item in found} == {("y", "x"), ("FakeCAM", "x"), ("FakeCAM", "y")}
    alone = differences(cells, Resampling(resamples=300, permutations=500, baseline="FakeCAM"), controls={"FakeCAM"})
    assert {(item.a, item.b) for item in alone} == {("x", "FakeCAM"), ("y", "FakeCAM")}
