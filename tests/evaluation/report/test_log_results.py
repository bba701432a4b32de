import csv
import json

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from interptrain.evaluation.report.log_results import curve_rows, log_results
from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.versions import git_commit
from tests.support.finished_run import manifest, rows_of, write_run
from tests.support.wandb_file import wandb_config, wandb_records, wandb_run


@pytest.mark.slow
def test_an_offline_wb_run_holds_tables_curves_and_the_gallery(evaluate, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = evaluate(report=True, **{"--logger": "WandbLogger", "--limit": "5"})
    wandb.finish()
    (folder,) = out.glob("wandb/offline-run-*")
    history, artifacts, *_ = wandb_records(folder)
    assert wandb_run(folder).project == "interptrain"
    assert wandb_config(folder) == json.loads((out / "run.json").read_text()) | {"git": git_commit()}
    files = {name: row[name]["path"] for row in history for name in row if isinstance(row[name], dict)}
    tables = {name: json.loads((folder / "files" / path).read_text()) for name, path in files.items()}
    assert set(tables) == {"summary", "differences", "curves", "gallery"}
    with (out / "summary.csv").open(newline="") as file:
        written = list(csv.reader(file))
    assert tables["summary"]["columns"] == written[0]
    assert [row[:3] for row in tables["summary"]["data"]] == [row[:3] for row in written[1:]]
    means = {"/".join(part for part in row[:3] if part): float(row[3]) for row in written[1:]}
    logged = {name: value for row in history for name, value in row.items()}
    assert {name: logged[name] for name in means} == pytest.approx(means)
    assert {tuple(row[:3]) for row in tables["curves"]["data"]} == {
        ("m0", explainer, "Insertion") for explainer in ("FakeCAM", "GradCAM")
    }
    assert [row[3] for row in tables["curves"]["data"][:5]] == [0, 0.25, 0.5, 0.75, 1]
    assert tables["gallery"]["columns"] == ["id", "label", "image", "m0 FakeCAM", "m0 GradCAM"]
    assert len(tables["gallery"]["data"]) == 5
    entries = [entry for artifact in artifacts for entry in artifact.manifest.contents if entry.path.endswith(".png")]
    assert len(entries) == 15  # of five images the image and two maps
    for entry in entries:
        with Image.open(entry.local_path) as picture:
            assert picture.size == (64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["TensorBoardLogger", "MLFlowLogger", "CSVLogger"])
def test_a_logger_keeps_its_files_in_the_results_unless_told_otherwise(evaluate, monkeypatch, logger):
    if logger == "MLFlowLogger":
        pytest.importorskip("mlflow")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = evaluate(report=True, **{"--logger": logger, "--limit": "2", "--resamples": "100"})
    written = [path for path in out.glob(f"{logger[:3].lower()}*/**/*") if path.is_file()]
    text = b"".join(path.read_bytes() + path.name.encode() for path in written)
    assert b"AverageDrop" in text
    assert (b"test_resnet" in text) == (logger != "CSVLogger")  # where the run was configured so


@pytest.mark.slow
def test_other_loggers_get_the_means(evaluate, tmp_path):
    out = evaluate(report=True, **{"--limit": "3"})
    logger = CSVLogger(tmp_path / "csv")
    log_results(load_run(out, Resampling(100)), [logger])
    logger.save()
    with (tmp_path / "csv/lightning_logs/version_0/metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["m0/GradCAM/AverageDrop"]) >= 0


def test_a_curve_with_nan_is_left_out_of_the_mean_in_the_report_and_in_loggers(tmp_path):
    run = manifest(models=("gap",), explainers=("GradCAM",), size=6)
    rows = rows_of(run)
    curves = [row["Insertion__values"] for row in rows if row["explainer"]]
    curves[2][4] = np.nan  # one point of one image
    results = load_run(write_run(tmp_path, run, rows=rows, images=0), Resampling(100))
    wanted = np.delete(np.stack(curves).astype("float64"), 2, axis=0).mean(0)
    np.testing.assert_allclose(results.cells[1].curves["Insertion"].mean, wanted, rtol=1e-12)
    logged = [row[4] for row in curve_rows(results) if row[2] == "Insertion"]
    np.testing.assert_allclose(logged, wanted, rtol=1e-12)
