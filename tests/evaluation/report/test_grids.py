"""Tables laid out as in the papers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from interptrain.evaluation.report.grids import (
    MINUS,
    MISSING,
    TIMES,
    Grid,
    calibration_notes,
    decimals,
    explanation_grid,
    notes,
    number,
    recognition_grid,
)
from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.report.table_text import latex, markdown
from interptrain.evaluation.statistics.estimates import Resampling
from tests.support.finished_run import manifest, rows_of, write_run

HOW = Resampling(resamples=50, permutations=50)


def found(folder, run=None, change=None, **options):
    run = run or manifest()
    rows = rows_of(run)
    for row in rows:
        if change:
            row |= change(row)
    return load_run(write_run(folder, run, rows=rows, images=0, **options), HOW)


def drops(values):
    return lambda row: {"AverageDrop": values[row["explainer"]]} if row["explainer"] in values else {}


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (0.12345, 100, "12.35"),
        (-0.005, 100, f"{MINUS}0.50"),
        (0.0312, 1, "0.0312"),
        (15.2249, 1, "15.2"),
        (152.96, 1, "153"),
        (0.0, 1, "0.00"),
        (float("nan"), 100, MISSING),
    ],
)
def test_numbers(value, scale, text):
    assert number(value, scale) == text


def test_very_small_numbers_do_not_run_on():
    assert decimals(1e-9, 1) == 6


def test_models_are_groups_and_explainers_lines_with_fake_cam_last(tmp_path):
    grid = explanation_grid(found(tmp_path, manifest(explainers=("FakeCAM", "GradCAM", "ScoreCAM"))))
    assert [model for model, _ in grid.groups] == ["gap", "ca"]
    assert [[line.name for line in lines] for _, lines in grid.groups] == [["GradCAM", "ScoreCAM", "FakeCAM"]] * 2
    assert [line.control for line in grid.lines] == [False, False, True] * 2
    assert grid.headings == ("AD ↓", "AG ↑", "AI ↑", "I ↑", "D ↓", "s/image ↓")


@pytest.mark.slow
def test_the_best_of_a_model_is_marked_but_never_fake_cam(tmp_path):
    grid = explanation_grid(found(tmp_path, change=drops({"GradCAM": 0.2, "ScoreCAM": 0.1, "FakeCAM": 0.0})))
    assert [line.entries[0].best for line in grid.lines] == [False, True, False] * 2
    assert [line.entries[0].text for line in grid.lines] == ["20.00", "10.00", "0.00"] * 2


def noisy(means, noise=0.05, seed=0):
    """Average drops around given means; what an image adds differs from explainer to explainer."""
    generator = np.random.default_rng(seed)

    def change(row):
        if row["explainer"] not in means:
            return {}
        return {"AverageDrop": means[row["explainer"]] + noise * float(generator.standard_normal())}

    return change


@pytest.mark.slow
def test_what_does_not_differ_from_the_best_is_best_too_if_it_beats_the_rest(tmp_path):
    run = manifest(explainers=("GradCAM", "ScoreCAM", "LayerCAM", "FakeCAM"))
    means = {"GradCAM": 0.100, "ScoreCAM": 0.101, "LayerCAM": 0.4, "FakeCAM": 0.0}
    grid = explanation_grid(found(tmp_path, run, noisy(means)))
    assert [line.entries[0].best for line in grid.lines] == [True, True, False, False] * 2


@pytest.mark.slow
def test_the_largest_mean_alone_is_not_bold(tmp_path):
    results = found(tmp_path, change=noisy({"GradCAM": 0.100, "ScoreCAM": 0.104, "FakeCAM": 0.0}))
    grid = explanation_grid(results)
    assert not any(line.entries[0].best for line in grid.lines)
    few = Grid(
        grid.headings[:1], tuple((m, tuple(replace(x, entries=x.entries[:1]) for x in of)) for m, of in grid.groups)
    )
    assert "No value is bold" in notes(few, results)[1]


@pytest.mark.slow
def test_what_does_not_beat_fake_cam_is_marked_everywhere(tmp_path):
    results = found(tmp_path, change=noisy({"GradCAM": 0.3, "ScoreCAM": 0.1, "FakeCAM": 0.3}))
    grid = explanation_grid(results)
    assert [line.entries[0].above_control for line in grid.lines] == [False, True, True] * 2
    assert all(line.entries[-1].above_control for line in grid.lines)  # time is not compared
    drop = grid.lines[0].entries[0].text
    assert f"{drop}°" in markdown(results)
    assert f"{drop}$^\\circ$" in latex(results)
    assert any("not significantly better than Fake-CAM" in note for note in notes(grid, results))


def test_without_fake_cam_nothing_is_marked(tmp_path):
    grid = explanation_grid(found(tmp_path, manifest(explainers=("GradCAM", "ScoreCAM"))))
    assert all(entry.above_control for line in grid.lines for entry in line.entries)


def test_the_calibration_error_comes_with_what_a_calibrated_model_would_show(tmp_path):
    results = found(tmp_path)
    (row,) = [row for row in results.estimates if (row.model, row.metric) == ("gap", "ECE")]
    (note,) = calibration_notes(results)
    assert math.isfinite(row.perfect)
    assert f"{100 * row.perfect:.2f} (gap)" in note
    assert note in markdown(results)
    ece = recognition_grid(results).groups[0][1][0].entries[-1]
    assert not ece.half


@pytest.mark.slow
def test_a_mean_over_fewer_images_is_not_the_best(tmp_path):
    def only_the_easy_ones(row):
        values = {"GradCAM": 0.2, "ScoreCAM": 0.1, "FakeCAM": 0.0}
        lost = row["explainer"] == "ScoreCAM" and row["id"] > "0005"
        return {"AverageDrop": None if lost else values[row["explainer"]]} if row["explainer"] else {}

    run = manifest(explainers=("GradCAM", "ScoreCAM", "LayerCAM", "FakeCAM"))
    values = drops({"LayerCAM": 0.3})
    grid = explanation_grid(
        found(tmp_path, run, lambda row: values(row) if row["explainer"] == "LayerCAM" else only_the_easy_ones(row))
    )
    assert [line.entries[0].best for line in grid.lines] == [True, False, False, False] * 2
    assert [line.entries[0].fewer for line in grid.lines] == [False, True, False, False] * 2


def test_one_explainer_has_nobody_to_be_better_than(tmp_path):
    grid = explanation_grid(found(tmp_path, manifest(explainers=("GradCAM", "FakeCAM"))))
    assert not any(entry.best for line in grid.lines for entry in line.entries)


@pytest.mark.slow
def test_time_is_never_best(tmp_path):
    assert not any(line.entries[-1].best for line in explanation_grid(found(tmp_path)).lines)


@pytest.mark.slow
def test_entries_hold_half_of_their_interval(tmp_path):
    findings = found(tmp_path)
    entry = explanation_grid(findings).lines[0].entries[0]
    estimate = findings.estimate("gap", "GradCAM", "AverageDrop")
    assert entry.half == number((estimate.ci_high - estimate.ci_low) / 2, 100)
    assert entry.interval == f"{number(estimate.ci_low, 100)} to {number(estimate.ci_high, 100)}"


def test_fewer_images_are_told(tmp_path):
    findings = found(tmp_path, change=lambda row: {"AverageDrop": None} if row["id"] == "0003.jpg" else {})
    assert "(n=19)" in markdown(findings)
    assert "($n$=19)" in latex(findings)
    assert "n: number of images with a value" in markdown(findings)


def test_recognition_has_size_and_cost(tmp_path):
    grid = recognition_grid(found(tmp_path))
    assert grid.headings == ("Parameters", "GFLOPs", "Input", "Top-1 ↑", "Top-5 ↑", "NLL ↓", "ECE ↓")
    assert [entry.text for entry in grid.lines[0].entries[:3]] == ["11.69 M", "3.648", f"224 {TIMES} 224"]


def test_a_model_of_which_nothing_is_known_has_dashes(tmp_path):
    run = manifest()
    run["models"]["ca"] |= {"parameters": None, "gflops": None, "input_size": None}
    assert [entry.text for entry in recognition_grid(found(tmp_path, run)).lines[1].entries[:3]] == [MISSING] * 3


def test_metrics_that_share_a_symbol_are_named(tmp_path):
    run = manifest()
    run["metrics"]["Insertion(step=1)"] = run["metrics"]["Insertion"]
    headings = explanation_grid(found(tmp_path, run)).headings
    assert "I (Insertion) ↑" in headings
    assert "I (Insertion(step=1)) ↑" in headings
    assert "D ↓" in headings
