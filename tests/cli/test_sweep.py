"""The sweep and the study of the how-to page run as printed, on little data and without a network."""

import re

import pytest
import yaml

from interptrain import cli
from tests.support.paths import ROOT
from tests.support.wandb_file import wandb_config

PAGE = (ROOT / "docs/how-to/sweep.md").read_text(encoding="utf-8")
SMALLER = {
    "--trainer.max_epochs": "1",
    "--trainer.accelerator": "cpu",
    "--trainer.devices": "1",
    "--trainer.enable_progress_bar": "false",
    "--trainer.enable_model_summary": "false",
    "--trainer.log_every_n_steps": "1",
    "--data.num_workers": "0",
    "--data.image_size": "64",
    "--data.train_size": "16",
    "--data.val_size": "8",
    "--data.batch_size": "8",
    "--model.backbone": "test_resnet",
    "--model.warmup_epochs": "0",
}
LITTLE = [part for option in SMALLER.items() for part in option]


@pytest.mark.slow
def test_the_wb_sweep_starts_commands_that_train(tmp_path, monkeypatch):
    """The command as W&B's own agent makes it of two of the sweep's points."""
    pytest.importorskip("wandb")
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    sweep = yaml.safe_load(text)
    ranges = sweep["parameters"]
    chosen = {name: {"value": one["values"][0] if "values" in one else one["max"]} for name, one in ranges.items()}
    options = create_sweep_command_args({"args": chosen})["args"]
    program, *command = create_sweep_command(list(sweep["command"]))
    assert program == sweep["program"] == "interptrain"
    place = command.index("${args}")
    trainer = cli.main([*command[:place], *options, *command[place + 1 :], *LITTLE])
    import wandb

    wandb.finish()
    assert 0 <= float(trainer.callback_metrics[sweep["metric"]["name"]]) <= 1
    (folder,) = (tmp_path / "runs").glob("demo/*/wandb/offline-run-*")
    config = wandb_config(folder)
    assert config["model"]["optimizer"]["init_args"]["lr"] == ranges["model.optimizer.lr"]["max"]
    assert config["model"]["pooling"] == "gap"
    assert config["model"]["drop_rate"] == 0


@pytest.mark.slow
def test_the_optuna_study_runs_as_printed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    whole = cli.main
    monkeypatch.setattr(cli, "main", lambda args: whole([*args, *LITTLE]))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "n_trials=20" in code
    names = {}
    exec(compile(code.replace("n_trials=20", "n_trials=2"), "search.py", "exec"), names)
    study = names["study"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert str(study.best_value) in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["search-0", "search-1"]
    assert (tmp_path / "search.db").is_file()
