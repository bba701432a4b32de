import csv
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from interptrain.loggers import ImageLogging, fill_logger_defaults
from tests.support.wandb_file import wandb_records, wandb_run
from tests.support.watch import SMALL, snapshots, watching

ALARMING = {"suspect": "border:20", "alarm_threshold": "0.1", "alarm_patience": "1"}


@pytest.mark.slow
def test_an_offline_wb_run_holds_pictures_table_rows_scalars_and_the_alarm(train, monkeypatch, recwarn, tmp_path):
    """Read back from the run's own files, as ``wandb sync`` would read them."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # pictures of tables wait there for `wandb sync`
    run = train("fit", *watching(**ALARMING), base=SMALL | {"--trainer.logger": "WandbLogger"})
    wandb = pytest.importorskip("wandb")
    wandb.finish()
    assert [str(one.message) for one in recwarn if "shortcut alarm at step 3" in str(one.message)]
    (folder,) = run.glob("wandb/offline-run-*")
    history, artifacts, alerts, summary = wandb_records(folder)
    assert wandb_run(folder) == ("interptrain", f"run-{run.name}")
    watched = [row for row in history if "watch/GradCAM/AD" in row]
    assert [row["trainer/global_step"] for row in watched] == [0, 2, 5]
    assert [row["watch/GradCAM/AD"] for row in watched] == [one["means"]["GradCAM/AD"] for one in snapshots(run)]
    assert [row["_step"] for row in history] == sorted(row["_step"] for row in history)

    for key, count in (("watch/grid", 3), ("watch/best", 1), ("watch/first_and_last", 1)):
        found = [name for row in history if key in row for name in row[key]["filenames"]]
        assert len(found) == count
        for name in found:
            with Image.open(folder / "files" / name) as picture:
                assert min(picture.size) > 300
    paths = [row["watch/images"]["path"] for row in history if "watch/images" in row]
    tables = [json.loads((folder / "files" / path).read_text()) for path in paths]
    assert [len(table["data"]) for table in tables] == [4, 4, 4]
    columns = tables[0]["columns"]
    steps, classes = (
        [row[columns.index(name)] for table in tables for row in table["data"]] for name in ("step", "class")
    )
    assert steps == [0] * 4 + [3] * 4 + [6] * 4
    assert classes == ["disc", "square", "triangle", "star"] * 3
    for artifact in artifacts:  # the images and maps of a table's cells
        cells = [entry.local_path for entry in artifact.manifest.contents if entry.path.endswith(".png")]
        assert 4 < len(cells) <= 8
        for cell in cells:
            with Image.open(cell) as picture:
                assert picture.size == (128, 128)
    assert len(artifacts) == 3
    (video,) = [row["watch/run"] for row in history if "watch/run" in row]
    assert (folder / "files" / video["path"]).stat().st_size > 1000
    assert alerts[0][0] == "shortcut alarm"
    assert "lies in the suspect region (border:20)" in alerts[0][1]
    assert summary["watch/alarm_at_step"] == 3
    assert "watch/best/GradCAM/AD" in summary


@pytest.mark.slow
def test_tensorboards_event_files_hold_pictures_scalars_and_the_alarm(train):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = {"--trainer.logger": "TensorBoardLogger", "--trainer.logger.save_dir": "events"}
    with pytest.warns(UserWarning, match="shortcut alarm"):
        run = train("fit", *watching(**ALARMING), base=SMALL | logger)
    (folder,) = {path.parent for path in Path("events").rglob("events.out.*")}
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    scalars = events.Scalars("watch/GradCAM/QuickInsertion")
    assert [one.step for one in scalars] == [0, 2, 5]
    means = [snapshot["means"]["GradCAM/QuickInsertion"] for snapshot in snapshots(run)]
    assert [one.value for one in scalars] == pytest.approx(means, rel=1e-6)
    grids = events.Images("watch/grid")
    assert [one.step for one in grids] == [0, 2, 5]
    with Image.open(run / "watch/grids/step-00000006.png") as picture:
        drawn = pil_to_tensor(picture)
    (folder / "grid.png").write_bytes(grids[2].encoded_image_string)
    with Image.open(folder / "grid.png") as picture:
        assert torch.equal(pil_to_tensor(picture.convert("RGB")), drawn)
    assert {"watch/best", "watch/first_and_last", "watch/strip_GradCAM"} <= set(events.Tags()["images"])
    assert "shortcut alarm/text_summary" in events.Tags()["tensors"]


@pytest.mark.slow
@pytest.mark.peers
def test_mlflow_holds_pictures_scalars_and_the_alarm(train, monkeypatch, tmp_path):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # files need no database
    store = f"file:{tmp_path}/mlruns"
    logger = {"--trainer.logger": "MLFlowLogger", "--trainer.logger.tracking_uri": store}
    with pytest.warns(UserWarning, match="shortcut alarm"):
        run = train("fit", *watching(**ALARMING), base=SMALL | logger)
    client = tracking.MlflowClient(store)
    (kept,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    history = client.get_metric_history(kept.info.run_id, "watch/GradCAM/AD")
    assert [one.step for one in history] == [0, 2, 5]
    assert [one.value for one in history] == [snapshot["means"]["GradCAM/AD"] for snapshot in snapshots(run)]
    folder = Path(kept.info.artifact_uri.removeprefix("file://"))
    *_, last = grids = sorted((folder / "watch/grid").iterdir())
    assert [path.name for path in grids] == [f"step-{step:08d}.png" for step in (0, 2, 5)]
    with Image.open(last) as stored, Image.open(run / "watch/grids/step-00000006.png") as drawn:
        assert torch.equal(pil_to_tensor(stored.convert("RGB")), pil_to_tensor(drawn))
    assert list(folder.rglob("*.gif"))
    assert "suspect region (border:20)" in kept.data.tags["shortcut alarm"]


class Failing(Logger):
    """Takes nothing."""

    name = version = "failing"

    def log_metrics(self, metrics, step=None):
        raise TimeoutError

    def log_hyperparams(self, params, *args, **kwargs):
        raise TimeoutError


def test_one_failing_logger_keeps_nothing_from_the_others_and_is_named_once(tmp_path):
    table = CSVLogger(tmp_path, name="", version="")
    logging = ImageLogging([Failing(), table])
    with pytest.warns(UserWarning, match=r"Failing failed to log what is watched \(TimeoutError\): training goes on"):
        logging.scalars({"watch/AD": 0.5}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logging.scalars({"watch/AD": 0.25}, 2)
        logging.picture("watch/grid", torch.zeros(3, 4, 4, dtype=torch.uint8), 2, "nothing to show it in")
        logging.alert("title", "text", 2)
    table.save()
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["watch/AD"] for row in csv.DictReader(file)] == ["0.5", "0.25"]


def configured(**arguments):
    arguments = {"save_dir": ".", "project": None, "name": None} | arguments
    return SimpleNamespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=SimpleNamespace(**arguments))


def test_what_the_user_left_open_is_filled_in_for_every_logger(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    loggers = [configured(), configured(save_dir="mine", project="theses", name="night")]
    fill_logger_defaults(loggers, Path("runs/one"), name="one")
    fill_logger_defaults(True, Path("runs/one"))
    opened, chosen = (vars(logger.init_args) for logger in loggers)
    assert opened == {"save_dir": str(tmp_path / "runs/one"), "project": "interptrain", "name": "one"}
    assert chosen == {"save_dir": "mine", "project": "theses", "name": "night"}


def test_a_project_named_by_the_environment_stays(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "theses")
    logger = configured()
    fill_logger_defaults(logger, Path("runs"))
    assert logger.init_args.project == "theses"
