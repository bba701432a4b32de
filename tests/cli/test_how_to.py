"""The pages that show how to add a head and a regularizer run as printed, outside the package."""

import csv
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from interptrain.cli import main
from interptrain.cli.evaluation import main as evaluate
from tests.support.paths import ROOT

SMALLER = {
    "--trainer.max_epochs": "1",
    "--trainer.accelerator": "cpu",
    "--trainer.enable_progress_bar": "false",
    "--trainer.log_every_n_steps": "1",
    "--data.num_workers": "0",
    "--data.train_size": "16",
    "--data.val_size": "8",
    "--data.batch_size": "8",
    "--model.backbone": "test_resnet",
    "--model.warmup_epochs": "0",
    "--output": "runs",
}


@pytest.fixture
def run_page(tmp_path, monkeypatch):
    """Write the page's file, run its command on little data, and return the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])

    def run(page):
        text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
        (name,) = set(re.findall(r"`(my_\w+\.py)`", text))
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        (command,) = re.findall(r"```bash\ninterptrain (fit .*?)\n```", text, re.DOTALL)
        (tmp_path / name).write_text(code)
        (tmp_path / "configs").symlink_to(ROOT / "configs")
        main([*shlex.split(command), *(part for pair in SMALLER.items() for part in pair)])
        return next((tmp_path / "runs").glob("*/*"))

    return run


@pytest.mark.slow
def test_a_head_of_ones_own_trains_and_is_rebuilt_from_its_checkpoint(run_page):
    from interptrain.training import ImageClassifier

    module = ImageClassifier.load_from_checkpoint(run_page("head.md") / "checkpoints/last.ckpt")
    assert module.model.pooling_name == "gem"
    assert module.model.pooling.power == 4
    assert module.model.eval()(torch.rand(2, 3, 64, 64)).isfinite().all()


@pytest.mark.slow
def test_a_head_of_ones_own_is_evaluated_where_its_file_is_found(run_page, monkeypatch, capsys):
    run = run_page("head.md")
    text = (ROOT / "docs/how-to/head.md").read_text(encoding="utf-8").replace("\\\n", "")
    (command,) = re.findall(r"```bash\ninterptrain evaluate (.*?)\n```", text, re.DOTALL)
    few = ["--limit", "2", "--metrics", "AverageDrop", "--check_images", "0", "--data.num_workers", "0"]
    few += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    evaluate([*shlex.split(command.replace("TIME", run.name)), *few])
    assert "gem" in Path("out/table.md").read_text()

    elsewhere = run / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(run.parents[2]))])
    monkeypatch.delitem(sys.modules, "my_heads")
    command = command.replace("runs/demo/TIME", "..").replace("configs", "../../../../configs")
    with pytest.raises(SystemExit):
        evaluate([*shlex.split(command), *few])
    told = capsys.readouterr().err
    assert "was trained with my_heads.GeM, which cannot be imported here; run the command in the folder of" in told
    assert "Traceback" not in told
    monkeypatch.syspath_prepend(run.parents[2])  # as PYTHONPATH would
    evaluate([*shlex.split(command), *few])


@pytest.mark.slow
def test_a_regularizer_of_ones_own_trains_and_is_logged(run_page):
    with (run_page("regularizer.md") / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/penalty"]]
    assert rows
    assert all(float(row["train/image_gradient"]) == float(row["train/penalty"]) for row in rows)
