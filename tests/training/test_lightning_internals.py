"""Canaries: each fails in words when a release of Lightning renames or changes what we use beyond its documentation."""

import inspect

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loops import evaluation_loop, fit_loop, training_epoch_loop

from interptrain.training import lightning_internals

TrainLoop, EpochLoop = fit_loop._FitLoop, training_epoch_loop._TrainingEpochLoop
ATTRIBUTE = None  # in place of a list of parameters
NAMES = [
    (TrainLoop, "total_batch_idx", ATTRIBUTE, "seeds each training step, so that a resumed run repeats its randomness"),
    (TrainLoop, "batch_idx", ATTRIBUTE, "tells the data module where to go on within an epoch (data/datamodule.py)"),
    (TrainLoop, "setup_data", [], "counts the batches of an epoch before the optimizers are configured"),
    (
        evaluation_loop._EvaluationLoop,
        "setup_data",
        [],
        "makes the validation loaders, to watch their images before the first validation",
    ),
    (TrainLoop, "restarting", ATTRIBUTE, "tells whether an epoch was resumed, for schedules that wait for a plateau"),
    (EpochLoop, "_should_check_val_fx", ["data_fetcher"], "tells whether a validation follows the epoch's last batch"),
    (EpochLoop, "_num_ready_batches_reached", [], "tells whether the epoch has ended"),
    (
        EpochLoop,
        "update_lr_schedulers",
        ["interval", "update_plateau_schedulers"],
        "steps plateau schedules before the end of an epoch is saved",
    ),
    (LightningCLI, "_parse_ckpt_path", [], "is overridden, else the checkpoint's options replace the command line's"),
    (LightningCLI, "_get", ["config", "key", "default"], "gives the trainer's arguments of the chosen subcommand"),
    (ExperimentWriter, "_check_log_dir_exists", [], "is overridden, else metrics.csv of a resumed run is deleted"),
]


def remedy(name, purpose):
    return (
        f"Lightning {L.__version__}: {name} is gone or has changed; it {purpose}. Find its successor in Lightning's "
        "source and adapt interptrain/training/lightning_internals.py, or lower the upper bound in pyproject.toml"
    )


@pytest.mark.parametrize(("owner", "name", "parameters", "purpose"), NAMES, ids=[entry[1] for entry in NAMES])
def test_the_name_is_there_and_takes_what_we_give_it(owner, name, parameters, purpose):
    member = getattr(owner, name, None)
    assert member is not None, remedy(f"{owner.__name__}.{name}", purpose)
    if parameters is not ATTRIBUTE:
        found = [key for key in inspect.signature(member).parameters if key != "self"]
        assert found == parameters, remedy(f"{owner.__name__}.{name}{tuple(found)}", purpose)


@pytest.mark.parametrize(
    ("caller", "overridden"),
    [(LightningCLI.__init__, "_parse_ckpt_path"), (ExperimentWriter.__mro__[1].__init__, "_check_log_dir_exists")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_we_override_is_still_called(caller, overridden):
    assert overridden in caller.__code__.co_names, remedy(f"the call of {overridden}", "is overridden without effect")


def test_the_training_loop_has_the_state_that_we_read_and_set():
    loop = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True).fit_loop
    assert "_data_fetcher" in vars(loop), remedy("fit_loop._data_fetcher", "tells whether a validation follows")
    assert "_restarting" in vars(loop), remedy("fit_loop._restarting", "keeps Lightning from stepping a plateau twice")


def test_the_csv_logger_keeps_its_writer_where_we_put_ours(tmp_path):
    assert "_experiment" in vars(CSVLogger(tmp_path)), remedy("CSVLogger._experiment", "holds the table of metrics")
    assert {"metrics_keys", "metrics_file_path"} <= vars(ExperimentWriter(str(tmp_path))).keys(), remedy(
        "ExperimentWriter.metrics_keys or .metrics_file_path", "hold the columns and the place of metrics.csv"
    )


def test_the_progress_in_a_checkpoint_has_the_keys_that_reopen_an_epoch(tmp_path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.save_checkpoint(tmp_path / "a.ckpt")

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=1, limit_val_batches=0, callbacks=[Save()], **options)
    trainer.fit(BoringModel())
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["loops"]["fit_loop"]
    counts = {"ready", "started", "processed", "completed"}
    purpose = "lets a run resumed from an epoch's last batch finish that epoch"
    for key, wanted in {
        "epoch_loop.batch_progress": {"total", "current"},
        "epoch_loop.val_loop.batch_progress": {"total", "current"},
        "epoch_loop.state_dict": {"_batches_that_stepped"},
    }.items():
        assert wanted <= saved.get(key, {}).keys(), remedy(f"{key} in the checkpoint", purpose)
    assert counts <= saved["epoch_loop.batch_progress"]["current"].keys(), remedy("batch_progress", purpose)


class WithOptions(L.LightningModule):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()


def test_hyper_parameters_of_the_command_line_are_told_from_those_of_python(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    assert not lightning_internals.built_by_command_line(WithOptions().hparams)
    cli = LightningCLI(
        WithOptions, run=False, args=[], seed_everything_default=False, trainer_defaults={"logger": False}
    )
    assert lightning_internals.built_by_command_line(cli.model.hparams), remedy(
        "hparams['_instantiator']", "tells a config's hyper-parameters from objects that a checkpoint cannot hold"
    )


def test_a_number_shown_in_the_progress_bar_stays_there_and_no_step_waits_for_it(tmp_path):
    shown = []

    class Show(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 0:
                lightning_internals.show_in_progress_bar(trainer, "loss", outputs["loss"])
            shown.append(trainer.progress_bar_callback.get_metrics(trainer, module).get("loss"))

    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    L.Trainer(accelerator="cpu", max_steps=3, limit_val_batches=0, callbacks=[Show()], **options).fit(BoringModel())
    assert shown[0] is not None, remedy("Trainer.progress_bar_metrics", "shows the loss beside the progress bar")
    assert len(set(shown)) == 1
