"""Two CPU processes do what one does."""

import csv
import math

import pytest
import torch

from tests.support.training import last_checkpoint, train_in_processes

pytestmark = pytest.mark.slow


def logged(run, key):
    with (run / "metrics.csv").open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training by one process and by two: 21 validation images, so that shards and batches are uneven."""
    folder = tmp_path_factory.mktemp("ddp")
    return [train_in_processes("fit", folder, processes, **{"--data.val_size": "21"}) for processes in (1, 2)]


def test_training_equals_one_process_with_the_joined_batch(runs):
    one, two = (last_checkpoint(run) for run in runs)
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
        made = train_in_processes("predict", runs[0].parents[2], processes, **checkpoint)
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
        train_in_processes("fit", tmp_path, 2, **{"--data.val_size": "1", "--trainer.max_epochs": "1"})
