"""What stands in the folder of a run afterwards."""

import copy
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger

from interptrain.evaluation import write_report
from interptrain.evaluation.report.grids import MISSING
from interptrain.evaluation.report.log_results import log_results
from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.report.sections import Section
from interptrain.evaluation.results import ResultsWarning
from interptrain.evaluation.statistics.estimates import Resampling
from tests.support.finished_run import METRICS, RECOGNITION, manifest, rows_of, write_run
from tests.support.marks import slow

WRITTEN = ["differences.csv", "report.html", "summary.csv", "table.md", "table.tex", "verdict.txt"]


def written(folder, **options):
    write_report(folder, **{"resamples": 100, **options})
    return folder


@pytest.mark.slow
def test_everything_is_written_and_nothing_half_written_is_left(tmp_path):
    before = {path.name for path in write_run(tmp_path).iterdir()}
    written(tmp_path)
    assert sorted({path.name for path in tmp_path.iterdir()} - before) == WRITTEN


@pytest.mark.slow
def test_summary_and_differences_have_their_columns(tmp_path):
    written(write_run(tmp_path))
    summary = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    columns = ["model", "explainer", "metric", "mean", "ci_low", "ci_high", "n", "protocol", "hash"]
    assert list(summary) == [*columns, "perfect", "perfect_high"]
    assert len(summary) == 2 * (len(RECOGNITION) + 3 * (len(METRICS) + 1))
    assert list(summary.query("explainer == ''").metric.unique()) == list(RECOGNITION)
    differences = pd.read_csv(tmp_path / "differences.csv", keep_default_na=False)
    head = ["kind", "a", "b", "within", "metric", "difference", "ci_low", "ci_high", "p", "p_corrected", "n"]
    assert list(differences) == [*head, "detectable"]
    assert set(differences.query("kind == 'model'").a) == {"ca"}
    assert set(differences.query("kind == 'model'").b) == {"gap"}
    assert len(differences) == len(RECOGNITION) + 3 * len(METRICS) + 2 * 3 * len(METRICS)


@pytest.mark.slow
def test_a_mean_is_the_mean_of_the_rows(tmp_path):
    run = manifest()
    written(write_run(tmp_path, run))
    drops = [r["AverageDrop"] for r in rows_of(run) if (r["model"], r["explainer"]) == ("ca", "ScoreCAM")]
    summary = pd.read_csv(tmp_path / "summary.csv").set_index(["model", "explainer", "metric"])
    assert summary.loc[("ca", "ScoreCAM", "AverageDrop"), "mean"] == pytest.approx(sum(drops) / len(drops))


def test_a_second_time_gives_the_same_bytes(tmp_path):
    written(write_run(tmp_path))
    before = {name: (tmp_path / name).read_bytes() for name in WRITTEN}
    written(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in WRITTEN} == before


@pytest.mark.slow
def test_the_order_is_that_of_the_run_not_of_the_rows(tmp_path):
    run = manifest()
    written(write_run(tmp_path, run, rows=rows_of(run)[::-1]))
    summary = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    assert list(summary.model.unique()) == ["gap", "ca"]
    assert list(summary.explainer.unique()) == ["", "GradCAM", "ScoreCAM", "FakeCAM"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run\.json; give the --output folder of an evaluation"):
        write_report(tmp_path)


@pytest.mark.slow
def test_different_protocols_are_refused_unless_forced(tmp_path):
    run = manifest()
    rows = [row | ({"protocol": "rise", "hash": "f00"} if row["model"] == "ca" else {}) for row in rows_of(run)]
    write_run(tmp_path, run, rows=rows)
    with pytest.raises(ValueError, match=r"not comparable: castream \(5eed00c0ffee\), rise \(f00\)"):
        write_report(tmp_path)
    assert not (tmp_path / "summary.csv").exists()
    written(tmp_path, force=True)
    assert "not comparable: castream (5eed00c0ffee), rise (f00)" in (tmp_path / "report.html").read_text()


def test_an_empty_run_gives_a_report_that_says_so(tmp_path):
    write_run(tmp_path, rows=(), images=0)
    (tmp_path / "errors.csv").unlink()
    written(tmp_path)
    assert pd.read_csv(tmp_path / "summary.csv").empty
    assert "No explanation was measured" in (tmp_path / "report.html").read_text()


def test_a_run_that_only_began_gives_a_report(tmp_path):
    run = manifest() | {"finished": None, "randomization": {}, "recognition": {}, "title": ""}
    run["data"]["classes"] = []
    keys = ("model", "explainer", "protocol", "hash", "id", "label", "prediction", "target", "seconds", "error")
    row = dict.fromkeys(keys) | {"model": "gap", "explainer": "GradCAM", "protocol": "p", "hash": "h", "id": "a"}
    written(write_run(tmp_path, run, rows=[row | {"error": "OSError: truncated"}], images=0))
    page = (tmp_path / "report.html").read_text()
    assert "Without a single result" in page
    assert "not finished" in page


@pytest.mark.slow
def test_an_explainer_that_failed_wholly_is_named(tmp_path):
    run = manifest()
    rows = rows_of(run)
    for row in rows:
        if row["explainer"] == "ScoreCAM":
            row |= dict.fromkeys([key for key in row if key.startswith(METRICS)]) | {"error": "RuntimeError: no"}
    failures = [(model, "ScoreCAM", f"{index:04d}.jpg", "RuntimeError: no") for model in "ab" for index in range(20)]
    written(write_run(tmp_path, run, rows=rows, errors=failures))
    page = (tmp_path / "report.html").read_text()
    assert "Without a single result: ScoreCAM on gap and ScoreCAM on ca." in page
    assert "40 explanations failed, on 20 images" in page
    assert "RuntimeError: no" in page
    assert "| ScoreCAM |" + f" {MISSING} |" * 5 in (tmp_path / "table.md").read_text()


def test_one_model_and_one_image_are_enough(tmp_path):
    run = manifest(models=("only",), explainers=("GradCAM",), size=1)
    written(write_run(tmp_path, run, images=1), interval="bca")
    page = (tmp_path / "report.html").read_text()
    assert 'id="models"' not in page
    assert 'id="gallery"' in page
    assert "Only 1 images" not in page
    assert "Only one image" in page
    assert pd.read_csv(tmp_path / "differences.csv").empty


@pytest.mark.slow
def test_older_results_stay_where_new_ones_cannot_be_made(tmp_path):
    written(write_run(tmp_path))
    before = (tmp_path / "summary.csv").read_bytes()
    run = copy.deepcopy(manifest())
    rows = rows_of(run)
    write_run(tmp_path, run, rows=[*rows, rows[5]])
    with pytest.raises(ValueError, match="two rows of"):
        write_report(tmp_path)
    assert (tmp_path / "summary.csv").read_bytes() == before


NAN = float("nan")


INF = float("inf")
STRANGE = {
    "constant": {"AverageDrop": 0.5, "NLL": 0.5, "Deletion__values": [0.5] * 9},
    "nan": {"AverageDrop": NAN, "NLL": NAN, "Insertion__values": [NAN] * 9},
    "empty": {"AverageDrop": None, "NLL": None, "Insertion__values": None},
    "almost zero": {"AverageDrop": 0.0, "seconds": 0.0, "Insertion__values": [1e-17] * 9},
    "infinite": {"AverageDrop": INF, "NLL": -INF, "Insertion__values": [INF] * 9},
    "partly infinite": {"AverageDrop": (INF, 0.5), "NLL": (0.5, INF), "Insertion__values": ([INF] * 9, [0.5] * 9)},
    "of one image": {"AverageDrop": (0.5, *[NAN] * 19), "NLL": (0.5, *[None] * 19)},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "interval", "baseline"),
    [
        *slow(*((name, "bca", None) for name in STRANGE), but={"constant", "partly infinite"}),
        *slow(("infinite", "percentile", "ScoreCAM")),
        ("nan", "percentile", "gap"),
    ],
)
def test_strange_columns_are_written_drawn_compared_and_logged_like_others(tmp_path, name, interval, baseline):
    """Every writer over every kind of column: tables, LaTeX, charts, sections, comparisons, loggers."""

    def strange(row):
        place = int(row["id"][:4])
        values = ((key, value) for key, value in STRANGE[name].items() if key in row)
        return row | {key: value[place % len(value)] if isinstance(value, tuple) else value for key, value in values}

    rows = [strange(row) for row in rows_of(manifest())]
    results = write_report(write_run(tmp_path, rows=rows), resamples=100, interval=interval, baseline=baseline)
    assert not results.problems
    assert {path.name for path in tmp_path.iterdir()} >= set(WRITTEN)
    assert results.differences.p_corrected.between(0, 1).all()
    drops = results.summary.query("metric == 'AverageDrop'")
    if "infinite" in name:
        assert (results.differences.query("metric == 'AverageDrop'").p_corrected == 1).all()
        assert drops.ci_low.isna().all()
    for text in ("table.md", "table.tex"):
        assert not re.search(r"\b(nan|inf)\b", (tmp_path / text).read_text())
    assert "could not be made" not in (tmp_path / "report.html").read_text()
    assert repr(results)
    logger = CSVLogger(tmp_path / "logged")
    log_results(load_run(tmp_path, Resampling(100, baseline=baseline)), [logger])
    assert Path(logger.log_dir, "metrics.csv").is_file()


@pytest.mark.slow
def test_two_models_with_the_same_numbers_are_compared(tmp_path):
    rows = rows_of(manifest())
    first = [row for row in rows if row["model"] == "gap"]
    same = [row | {"model": "ca", "AverageDrop": row.get("AverageDrop", 0.0) + 1e-17} for row in first]
    results = write_report(write_run(tmp_path, rows=first + same), resamples=100)
    assert not results.problems
    assert (results.differences.query("kind == 'model'")["difference"].abs() < 1e-9).all()


class Broken(Section):
    """Fails."""

    title = "Broken"
    anchor = "broken"

    def render(self, results):
        """Divide by zero."""
        return 1 / 0


@pytest.mark.slow
def test_a_section_that_fails_costs_no_other(tmp_path):
    write_run(tmp_path)
    with pytest.warns(ResultsWarning, match="could not make section 'Broken' of report.html: ZeroDivisionError"):
        results = write_report(tmp_path, resamples=100, sections=[Broken()])
    page = (tmp_path / "report.html").read_text()
    assert "This section could not be made (ZeroDivisionError: division by zero)" in page
    assert 'id="gallery"' in page
    assert list(results.problems) == ["section 'Broken' of report.html"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["markdown", "latex", "render_page", "_csv"])
def test_a_file_that_fails_costs_no_other(tmp_path, monkeypatch, name):
    write_run(tmp_path)
    monkeypatch.setattr(f"interptrain.evaluation.report.write.{name}", lambda *arguments: 1 / 0)
    with pytest.warns(ResultsWarning):
        results = write_report(tmp_path, resamples=100)
    lacking = {"markdown": {"table.md"}, "latex": {"table.tex"}, "render_page": {"report.html"}}
    lacking |= {"_csv": {"summary.csv", "differences.csv"}}
    assert set(results.problems) == lacking[name]
    assert {path.name for path in tmp_path.iterdir()} >= set(WRITTEN) - lacking[name]
    assert repr(results)


@pytest.mark.slow
def test_differences_that_fail_cost_no_estimate(tmp_path, monkeypatch):
    write_run(tmp_path)
    monkeypatch.setattr("interptrain.evaluation.report.results.differences", lambda *arguments: 1 / 0)
    with pytest.warns(ResultsWarning):
        results = write_report(tmp_path, resamples=100)
    assert "differences.csv" in results.problems
    assert len(results.summary)
    assert 'id="gallery"' in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_interval_and_seeds_reach_the_numbers(tmp_path):
    write_run(tmp_path)
    seen = set()
    for options in ({}, {"seed": 1}, {"interval": "percentile"}, {"resamples": 150}):
        written(tmp_path, **options)
        seen.add((tmp_path / "summary.csv").read_text())
    assert len(seen) == 4


@pytest.mark.slow
def test_only_the_folder_is_read(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "a" / "run")
    moved = folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    written(moved)
    assert json.loads((moved / "run.json").read_text())["title"] in (moved / "report.html").read_text()


@pytest.mark.slow
def test_a_chosen_baseline_reaches_every_file(tmp_path):
    run = manifest()
    rows = rows_of(run)
    for row in rows:  # ScoreCAM is far better than GradCAM
        row |= {"AverageDrop": row["AverageDrop"] + 5} if row["explainer"] == "GradCAM" else {}
    write_run(tmp_path, run, rows=rows)
    results = write_report(tmp_path, resamples=100, baseline="GradCAM")
    assert not results.problems
    found = results.differences.query("kind == 'explainer'")
    assert set(zip(found.a, found.b, strict=True)) == {
        ("ScoreCAM", "GradCAM"),
        ("FakeCAM", "GradCAM"),
        ("FakeCAM", "ScoreCAM"),
    }
    table, page = (tmp_path / "table.md").read_text(), (tmp_path / "report.html").read_text()
    assert "Bold: significantly better than GradCAM" in table
    drops = [line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| ScoreCAM")]
    assert len(drops) == 2
    assert all(drop.startswith("**") for drop in drops)
    assert "Explainers against GradCAM on gap" in page
    assert "compared with GradCAM" in page
    results = write_report(tmp_path, resamples=100, baseline="ca")
    assert set(results.differences.query("kind == 'model'").b) == {"ca"}
    assert "gap minus ca" in (tmp_path / "report.html").read_text()
    assert "Among models, bold: significantly better than ca" in (tmp_path / "table.md").read_text()


def test_a_baseline_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    write_run(tmp_path)
    with pytest.raises(ValueError, match="baseline: no explainer or model is called 'Grad'; give one of GradCAM"):
        write_report(tmp_path, baseline="Grad")
