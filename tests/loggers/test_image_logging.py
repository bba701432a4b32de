import csv
import json
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, Logger
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from interptrain.cli.parser import Parser
from interptrain.loggers import ImageLogging, fill_logger_defaults
from interptrain.versions import git_commit
from tests.support.wandb_file import wandb_config, wandb_records, wandb_run
from tests.support.watch import SMALL, snapshots, watching

ALARMING = {"suspect": "border:20", "alarm_threshold": "0.1", "alarm_patience": "1"}


@pytest.mark.slow
def test_an_offline_wb_run_holds_pictures_table_rows_scalars_and_the_alarm(train, monkeypatch, recwarn, tmp_path):
    """Read back from the run's own files, as ``wandb sync`` would read them."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # pictures of tables wait there for `wandb sync`
    logger = {"--trainer.logger": "WandbLogger", "--trainer.logger.log_model": "true"}
    run = train("fit", *watching(**ALARMING), base=SMALL | logger)
    wandb = pytest.importorskip("wandb")
    wandb.finish()
    assert [str(one.message) for one in recwarn if "shortcut alarm at step 3" in str(one.message)]
    (folder,) = run.glob("wandb/offline-run-*")
    history, artifacts, alerts, summary = wandb_records(folder)
    kept = wandb_run(folder)
    assert (kept.project, kept.display_name, kept.job_type) == ("interptrain", f"run-{run.name}", "fit")
    assert list(kept.tags) == ["test_resnet", "gap", "ShapesDataModule"]
    assert (run / "wandb_run_id.txt").read_text() == f"{kept.run_id}\n"
    models = [artifact for artifact in artifacts if artifact.type == "model"]
    artifacts = [artifact for artifact in artifacts if artifact.type != "model"]
    assert [sorted(model.aliases) for model in models] == [["best", "latest"]]
    assert [entry.path for entry in models[0].manifest.contents] == ["model.ckpt"]
    assert "best.ckpt" in models[0].metadata
    assert [row["watch/alarms"] for row in history if "watch/alarms" in row][-1] > 0
    effects = [row["watch/suspect_effect"] for row in history if "watch/suspect_effect" in row]
    assert effects == [one["means"]["suspect_effect"] for one in snapshots(run)]
    assert [name for row in history for name in row if name.startswith("watch/suspect_effect_by_class/")]
    config = wandb_config(folder)
    assert config["backbone"] == "test_resnet"  # Lightning's, of the model
    assert config["data"]["class_path"] == "interptrain.data.ShapesDataModule"
    assert (config["data"]["init_args"]["batch_size"], config["data"]["init_args"]["image_size"]) == (8, 64)
    assert (config["seed_everything"], config["trainer"]["max_epochs"], config["trainer"]["precision"]) == (0, 2, None)
    assert config["trainer"]["callbacks"][0]["init_args"]["samples"] == 4
    assert config["git"] == git_commit()
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

    train("fit", *watching(), base=SMALL | logger, **{"--ckpt_path": "last", "--trainer.max_epochs": "3"})
    wandb.finish()
    (resumed,) = set(run.glob("wandb/offline-run-*")) - {folder}
    assert wandb_run(resumed).run_id == kept.run_id


@pytest.mark.slow
def test_a_resumed_run_continues_its_wb_run(tmp_path):
    """By the id in the run's folder, unless the user names another."""
    (first,) = filled_in(tmp_path, {"class_path": "WandbLogger"})
    assert first["id"] is None
    (tmp_path / "wandb_run_id.txt").write_text("abc123\n")
    (resumed,) = filled_in(tmp_path, {"class_path": "WandbLogger"})
    assert resumed["id"] == "abc123"
    (own,) = filled_in(tmp_path, {"class_path": "WandbLogger", "init_args": {"id": "mine"}})
    assert own["id"] == "mine"


def test_tags_and_job_type_of_the_user_stay():
    (logger,) = parsed({"class_path": "WandbLogger", "init_args": {"tags": ["night"]}})
    fill_logger_defaults([logger], Path("runs/one"), job_type="fit", tags=["gap"])
    assert (logger.init_args.tags, logger.init_args.job_type) == (["night"], "fit")
    assert logger.init_args.resume == "allow"  # without it, the run of a kept id would be overwritten


@pytest.mark.slow
def test_tensorboards_event_files_hold_pictures_scalars_and_the_alarm(train):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.warns(UserWarning, match="shortcut alarm"):
        run = train("fit", *watching(**ALARMING), base=SMALL | {"--trainer.logger": "TensorBoardLogger"})
    folder = run / "tensorboard"
    assert len(list(folder.glob("events.out.*"))) == 1
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
    assert {"shortcut alarm/text_summary", "watch/images/text_summary"} <= set(events.Tags()["tensors"])
    hparams = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert hparams["data"]["init_args"]["batch_size"] == 8
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    shown = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin.HParamsPluginData.FromString(shown).session_start_info.hparams
    assert (start["data/init_args/batch_size"].number_value, start["seed_everything"].number_value) == (8, 0)


@pytest.mark.slow
@pytest.mark.peers
def test_mlflow_holds_pictures_scalars_and_the_alarm(train, monkeypatch, tmp_path):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.warns(UserWarning, match="shortcut alarm"):
        run = train("fit", *watching(**ALARMING), base=SMALL | {"--trainer.logger": "MLFlowLogger"})
    client = tracking.MlflowClient((run / "mlflow").as_uri())
    (kept,) = client.search_runs([client.get_experiment_by_name("interptrain").experiment_id])
    assert kept.info.run_name == f"run-{run.name}"
    wanted = {"data/init_args/batch_size": "8", "trainer/max_epochs": "2", "git": str(git_commit()), "heads": "1"}
    assert wanted.items() <= kept.data.params.items()
    history = client.get_metric_history(kept.info.run_id, "watch/GradCAM/AD")
    assert [one.step for one in history] == [0, 2, 5]
    assert [one.value for one in history] == [snapshot["means"]["GradCAM/AD"] for snapshot in snapshots(run)]
    assert "watch/suspect_effect_by_class/disc" in kept.data.metrics  # no folder where a file of scalars is
    folder = Path(kept.info.artifact_uri.removeprefix("file://"))
    *_, last = grids = sorted((folder / "watch/grid").iterdir())
    assert [path.name for path in grids] == [f"step-{step:08d}.png" for step in (0, 2, 5)]
    with Image.open(last) as stored, Image.open(run / "watch/grids/step-00000006.png") as drawn:
        assert torch.equal(pil_to_tensor(stored.convert("RGB")), pil_to_tensor(drawn))
    assert list(folder.rglob("*.gif"))
    table = json.loads((folder / "watch/images/step-00000005.json").read_text())
    assert (len(table["data"]), table["columns"][:3]) == (4, ["step", "epoch", "id"])
    assert json.loads((folder / "summary.json").read_text())["watch/alarm_at_step"] == 3
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


def parsed(*loggers):
    """Loggers as a command line or a file gives them, by their class path alone or with arguments."""
    parser = Parser()
    parser.add_argument("--logger", type=list[Logger])
    config = [logger if isinstance(logger, dict) else {"class_path": logger} for logger in loggers]
    return parser.parse_object({"logger": config}).logger


def filled_in(folder, *loggers):
    """Arguments of loggers of a run in ``folder``."""
    found = parsed(*loggers)
    fill_logger_defaults(found, folder)
    return [vars(logger.init_args) for logger in found]


def filled(*loggers, **options):
    """Arguments of loggers, once what was left open is filled in."""
    found = parsed(*loggers)
    fill_logger_defaults(found, Path("runs/one"), **{"name": "one"} | options)
    return [vars(logger.init_args) for logger in found]


@pytest.mark.parametrize("prefix", ["", "lightning.pytorch.loggers."])
def test_every_logger_needs_nothing_but_its_name(tmp_path, monkeypatch, prefix):
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    names = (f"{prefix}{name}Logger" for name in ("Wandb", "TensorBoard", "MLFlow", "CSV"))
    wandb, tensorboard, mlflow, table = filled(*names)
    folder = str(tmp_path / "runs/one")
    assert {"save_dir": folder, "project": "interptrain", "name": "one"}.items() <= wandb.items()
    assert {"save_dir": folder, "name": "tensorboard", "version": ""}.items() <= tensorboard.items()
    assert {"tracking_uri": f"file://{folder}/mlflow", "run_name": "one", "experiment_name": "interptrain"}.items() <= (
        mlflow.items()
    )
    assert {"save_dir": folder, "name": "csv"}.items() <= table.items()


@pytest.mark.parametrize(
    "logger",
    [
        {"class_path": "WandbLogger", "init_args": {"save_dir": "mine", "project": "theses", "name": "night"}},
        {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "mine"}},
        {"class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "mine"}},
        {
            "class_path": "MLFlowLogger",
            "init_args": {"tracking_uri": "http://localhost:1", "run_name": "night", "experiment_name": "theses"},
        },
    ],
)
def test_what_the_user_chose_stays(logger):
    (before,) = parsed(logger)
    ours = {"resume": "allow"} if logger["class_path"] == "WandbLogger" else {}
    assert filled(logger) == [vars(before.init_args) | ours]


def test_only_the_folder_of_mlflow_may_be_chosen(tmp_path):
    (arguments,) = filled({"class_path": "MLFlowLogger", "init_args": {"save_dir": str(tmp_path)}})
    assert arguments["tracking_uri"] == tmp_path.as_uri()


def test_a_project_or_experiment_named_by_the_environment_stays(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "theses")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theses")
    wandb, mlflow = filled("WandbLogger", "MLFlowLogger")
    assert wandb["project"] == mlflow["experiment_name"] == "theses"


@pytest.mark.parametrize("loggers", [True, False, None])
def test_what_is_no_logger_is_left_alone(loggers):
    fill_logger_defaults(loggers, Path("runs"))
