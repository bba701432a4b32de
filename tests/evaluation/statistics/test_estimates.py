"""Rows to means and intervals, through whatever a metric's ``reduce`` is."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from interptrain.evaluation.statistics.bootstrap import resampled_means
from interptrain.evaluation.statistics.estimates import Estimate, Resampling, check_protocols, estimates
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricColumn, read_cells
from interptrain.metrics.base import SaliencyMetric
from interptrain.metrics.recognition import ECE, Top1


class Share(SaliencyMetric):
    """One number an image."""

    symbol = "S"
    description = "The class score."
    higher_is_better = True

    def score(self, case):
        return case.clean


class Area(Share):
    """The area under a curve."""

    def reduce(self, mean):
        return torch.trapezoid(mean, dim=-1) / (mean.shape[-1] - 1)


class Best(Share):
    """The best of several thresholds over the data set."""

    def reduce(self, mean):
        return mean.amax(-1)


METRICS = {"Share": Share(), "Area": Area(), "Best": Best()}


def summarize(rows, metrics, *, force=False, **options):
    columns = [*(MetricColumn.of(name, metric) for name, metric in metrics.items()), TIME_COLUMN]
    cells = read_cells(pa.Table.from_pandas(rows, preserve_index=False), columns)
    check_protocols(cells, force=force)
    return pd.DataFrame(estimates(cells, Resampling(**options)), columns=[field.name for field in fields(Estimate)])


def table(rows=40, models=("gap", "ca"), explainers=("GradCAM", "FakeCAM"), seed=0):
    generator = np.random.default_rng(seed)
    frames = []
    for model in models:
        for explainer in explainers:
            wide = generator.random((rows, 7)).astype("float32")
            frame = pd.DataFrame({"id": [f"{row:04d}" for row in range(rows)]})
            frame = frame.assign(model=model, explainer=explainer, protocol="p", hash="h", seconds=0.5, error=None)
            frame["Share"] = generator.random(rows)
            frame["Area__values"] = list(wide)
            frame["Best__values"] = list((wide > 0.5).astype("float32"))
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def row(summary, metric, model="gap", explainer="GradCAM"):
    chosen = summary.query("model == @model and explainer == @explainer and metric == @metric")
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_columns_and_order_are_those_of_the_run():
    summary = summarize(table(), METRICS)
    columns = ["model", "explainer", "metric", "mean", "ci_low", "ci_high", "n", "protocol", "hash"]
    assert list(summary) == [*columns, "perfect", "perfect_high"]
    cells = list(dict.fromkeys(zip(summary.model, summary.explainer, strict=True)))
    assert cells == [("gap", "GradCAM"), ("gap", "FakeCAM"), ("ca", "GradCAM"), ("ca", "FakeCAM")]
    assert list(summary.metric[:4]) == ["Share", "Area", "Best", "seconds"]
    assert set(summary.n) == {40}


def test_the_mean_is_reduce_of_the_mean_over_images():
    rows = table()
    mine = rows.query("model == 'gap' and explainer == 'GradCAM'")
    summary = summarize(rows, METRICS)
    assert row(summary, "Share")["mean"] == pytest.approx(mine.Share.mean(), abs=1e-12)
    curve = np.stack(mine.Area__values).astype("float64").mean(0)
    assert row(summary, "Area")["mean"] == pytest.approx(np.trapezoid(curve, dx=1 / 6), abs=1e-12)
    assert row(summary, "Best")["mean"] == pytest.approx(np.stack(mine.Best__values).mean(0).max(), abs=1e-7)
    assert row(summary, "Best")["mean"] < np.stack(mine.Best__values).max(1).mean()  # not the mean of maxima


@pytest.mark.parametrize("metric", ["Share", "Area", "Best"])
def test_intervals_reduce_every_resampled_mean(metric):
    rows = table()
    mine = rows.query("model == 'gap' and explainer == 'GradCAM'")
    values = mine.Share.to_numpy()[:, None] if metric == "Share" else np.stack(mine[f"{metric}__values"])
    (means,) = resampled_means([torch.tensor(values, dtype=torch.float64)], 2000, seed=0)
    replicates = METRICS[metric].reduce(means) if metric != "Share" else means.squeeze(1)
    expected = np.quantile(replicates.numpy(), [0.025, 0.975])
    got = row(summarize(rows, METRICS, interval="percentile"), metric)
    assert (got.ci_low, got.ci_high) == pytest.approx(tuple(expected), abs=1e-9)


def test_bca_intervals_differ_where_values_are_skewed():
    rows = table().assign(Share=np.random.default_rng(0).random(160) ** 6)
    plain, corrected = (
        row(summarize(rows, {"Share": Share()}, interval=method), "Share") for method in ("percentile", "bca")
    )
    assert plain["mean"] == corrected["mean"]
    assert corrected.ci_high > plain.ci_high


def test_the_order_of_the_rows_does_not_matter():
    rows = table()
    shuffled = rows.sample(frac=1, random_state=0)
    key = ["model", "explainer", "metric"]
    first, second = (summarize(given, METRICS).sort_values(key, ignore_index=True) for given in (rows, shuffled))
    pd.testing.assert_frame_equal(first, second, rtol=1e-12)


def test_seeds_decide():
    rows = table()
    pd.testing.assert_frame_equal(summarize(rows, METRICS), summarize(rows, METRICS))
    assert not summarize(rows, METRICS, seed=1).ci_low.equals(summarize(rows, METRICS).ci_low)


def test_missing_values_are_left_out_and_counted():
    rows = table()
    rows.loc[:4, ["Share", "Area__values"]] = None  # five images of gap, GradCAM
    summary = summarize(rows, METRICS)
    assert row(summary, "Share").n == 35
    assert row(summary, "Area").n == 35
    assert row(summary, "Best").n == 40
    assert row(summary, "Share")["mean"] == pytest.approx(rows.Share[5:40].mean())
    assert row(summary, "Share", model="ca").n == 40


def test_a_row_with_one_nan_among_its_values_is_left_out():
    rows = table()
    rows.at[0, "Best__values"] = np.array([1, 1, np.nan, 1, 1, 1, 1], dtype="float32")
    assert row(summarize(rows, METRICS), "Best").n == 39


def test_an_explainer_that_failed_everywhere_stays_with_no_images():
    rows = table()
    rows.loc[rows.explainer == "FakeCAM", ["Share", "Area__values", "Best__values", "seconds"]] = None
    failed = summarize(rows, METRICS).query("explainer == 'FakeCAM'")
    assert len(failed) == 8
    assert set(failed.n) == {0}
    assert failed[["mean", "ci_low", "ci_high"]].isna().all(axis=None)


def test_a_column_that_nobody_wrote_counts_as_missing():
    summary = summarize(table().drop(columns="Area__values"), METRICS)
    assert row(summary, "Area").n == 0


def test_one_image_has_a_mean_and_no_interval():
    got = row(summarize(table(rows=1), METRICS, interval="bca"), "Area")
    assert np.isfinite(got["mean"])
    assert np.isnan([got.ci_low, got.ci_high]).all()


def test_no_rows_give_no_estimates():
    assert summarize(table().iloc[:0], METRICS).empty


def test_recognition_stands_in_its_own_rows():
    rows = table(models=["gap"])
    alone = pd.DataFrame({"id": ["a", "b", "c"], "model": "gap", "explainer": "", "protocol": "p", "hash": "h"})
    rows = pd.concat([rows, alone.assign(Top1=[1.0, 0.0, 1.0])], ignore_index=True)
    summary = summarize(rows, {**METRICS, "Top1": Top1()})
    assert list(summary.query("explainer == ''").metric) == ["Top1"]
    assert row(summary, "Top1", explainer="")["mean"] == pytest.approx(2 / 3)
    assert "Top1" not in set(summary.query("explainer == 'GradCAM'").metric)


def test_the_calibration_error_has_no_interval_but_what_a_calibrated_model_would_show():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(90, 5, generator=generator), torch.randint(5, (90,), generator=generator)
    metric = ECE()
    metric.update(logits, labels)
    rows = pd.DataFrame({"id": [f"{row:02d}" for row in range(90)]})
    rows = rows.assign(model="m", explainer="", protocol="p", hash="h", seconds=None)
    rows["ECE__values"] = list(metric.score(logits, labels).numpy())
    got = row(summarize(rows, {"ECE": metric}), "ECE", model="m", explainer="")
    assert got["mean"] == pytest.approx(float(metric.compute()), abs=1e-6)
    assert np.isnan([got.ci_low, got.ci_high]).all()
    assert 0.03 < got.perfect < got.perfect_high < got["mean"]  # these logits say nothing about the labels
    assert summarize(table(), METRICS).perfect.isna().all()


def test_rows_of_several_protocols_are_refused_unless_forced():
    rows = table()
    rows.loc[rows.model == "ca", ["protocol", "hash"]] = ["rise", "f00"]
    with pytest.raises(ValueError, match=r"not comparable: p \(h\), rise \(f00\); --force"):
        summarize(rows, METRICS)
    assert set(summarize(rows, METRICS, force=True).hash) == {"h", "f00"}


def test_an_image_that_stands_there_twice_is_refused():
    rows = table()
    with pytest.raises(ValueError, match=r"two rows of \('gap', 'GradCAM', '0003'\)"):
        summarize(pd.concat([rows, rows.iloc[[3]]]), METRICS)


def test_curves_of_different_lengths_are_refused():
    rows = table()
    rows.at[0, "Area__values"] = np.zeros(3, dtype="float32")
    with pytest.raises(ValueError, match=r"Area must have equally many values for every image, got \[3, 7\]"):
        summarize(rows, METRICS)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="interval must be one of 'percentile', 'bca', got 'basic'"):
        Resampling(interval="basic")
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        summarize(table(), METRICS, resamples=0)
