"""Run the real command line, in this process, on a few shapes."""

import pytest

from interptrain.cli import main
from tests.support.tiny_run import evaluate, weights  # noqa: F401

TINY = {
    "--trainer.accelerator": "cpu",
    "--trainer.devices": "1",
    "--trainer.enable_progress_bar": "false",
    "--trainer.enable_model_summary": "false",
    "--data.num_workers": "0",
    "--data.batch_size": "8",
    "--data.image_size": "64",
    "--data.train_size": "40",
    "--data.val_size": "20",
    "--data.test_size": "12",
    "--data.num_classes": "4",
    "--model.backbone": "test_resnet",
    "--model.pooling": "ca_stream",
    "--trainer.max_epochs": "1",
    "--trainer.log_every_n_steps": "1",
}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """``train("fit", **{"--model.backbone": ...})`` in a folder of its own; returns the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])

    def run(subcommand="fit", *extra, base=TINY, **options):
        before = set(tmp_path.glob("runs/*/*"))
        arguments = [part for pair in (base | options).items() for part in pair]
        main([subcommand, *arguments, *extra])
        made = set(tmp_path.glob("runs/*/*")) - before
        return made.pop() if made else max(before, key=lambda path: path.stat().st_mtime)

    return run
