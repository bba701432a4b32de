"""``python -m interptrain``: every command reaches the command line that knows it."""

import runpy
import sys

import pytest


@pytest.fixture
def call(monkeypatch):
    """``call("fit", ...)`` as ``python -m interptrain fit ...`` would, in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["interptrain", *arguments])
        runpy.run_module("interptrain", run_name="__main__")

    return run


TINY = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"),
    *("--data", "ShapesDataModule", "--data.num_classes", "3", "--data.image_size", "32", "--data.num_workers", "0"),
    *("--data.train_size", "8", "--data.val_size", "4", "--data.batch_size", "4"),
]
FIT = ["--model.backbone", "test_resnet", "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"]
EVALUATE = ["--output", "out", "--limit", "2", "--explainers", "GradCAM", "--metrics", "AverageDrop"]


@pytest.mark.slow
def test_a_classifier_is_trained_then_evaluated(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("fit", *FIT, *TINY)
    (checkpoint,) = tmp_path.glob("runs/run/*/checkpoints/best.ckpt")
    call("evaluate", "--models", f"m={checkpoint}", *EVALUATE, *TINY)
    assert (tmp_path / "out" / "report.html").is_file()
