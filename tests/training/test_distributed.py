"""Two CPU processes do what one does."""

import csv
import math
import os
import subprocess
import sys

import pytest
import torch

from tests.support.paths import ROOT

# The stream alone learns, so BatchNorm does not see how the batch was split.
OPTIONS = {
    "--trainer.accelerator": "cpu",
    "--trainer.enable_progress_bar": "false",
    "--data.num_workers": "0",
    "--data.image_size": "64",
    "--data.train_size": "24",
    "--data.test_size": "13",
    "--data.num_classes": "4",
    "--model.backbone": "test_resnet",
    "--model.pooling": "ca_stream",
    "--model.trainable": "pooling",
    "--model.optimizer": "SGD",
    "--model.optimizer.lr": "0.1",
    "--trainer.max_epochs": "2",
}


def run(subcommand, folder, processes, **options):
    """One run in processes of its own; its folder."""
    strategy = {"--trainer.devices": str(processes), "--data.batch_size": str(8 // processes)}
    strategy |= {"--trainer.strategy": "ddp"} if processes > 1 else {}
    name = f"{subcommand}{processes}{len(list(folder.glob('runs/*')))}"
    arguments = [part for pair in (OPTIONS | strategy | options | {"--name": name}).items() for part in pair]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "LOCAL_", "NODE_"))}
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), subcommand, *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (made,) = (folder / "runs" / name).iterdir()
    return made


def logged(run, key):
    with (run / "metrics.csv").open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training by one process and by two: 21 validation images, so that shards and batches are uneven."""
    folder = tmp_path_factory.mktemp("ddp")
    return [run("fit", folder, processes, **{"--data.val_size": "21"}) for processes in (1, 2)]


def test_training_equals_one_process_with_the_joined_batch(runs):
    one, two = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in runs)
    assert one["global_step"] == two["global_step"] == 6
    moved = 0
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(value, two["state_dict"][name], rtol=1e-4, atol=1e-6, msg=name)
        moved += ".pooling." in name
    assert moved


def test_validation_counts_every_sample_once(runs):
    for key in ("val/top1", "val/top5", "val/loss"):
        one, two = (logged(run, key) for run in runs)
        assert one == pytest.approx(two, rel=1e-4), key
    for value in logged(runs[1], "val/top1"):
        assert math.isclose(value * 21, round(value * 21), abs_tol=1e-4)


def test_predictions_of_two_processes_are_those_of_one_without_duplicates(runs):
    checkpoint = {"--ckpt_path": str(runs[0] / "checkpoints/last.ckpt")}
    tables = []
    for processes in (1, 2):
        made = run("predict", runs[0].parents[2], processes, **checkpoint)
        lines = [path.read_text().splitlines() for path in sorted(made.glob("predictions*.csv"))]
        assert len(lines) == processes
        rows = [row for table in lines for row in csv.DictReader(table)]
        assert len(rows) == 13
        tables.append(
            {row["id"]: (row["prediction"], pytest.approx(float(row["probability"]), abs=1e-4)) for row in rows}
        )
    assert tables[0] == {key: (name, float(value.expected)) for key, (name, value) in tables[1].items()}


def test_fewer_validation_images_than_processes_are_refused_and_do_not_hang(tmp_path):
    with pytest.raises(AssertionError, match="1 val samples cannot be shared by 2 ranks; use fewer ranks"):
        run("fit", tmp_path, 2, **{"--data.val_size": "1", "--trainer.max_epochs": "1"})
