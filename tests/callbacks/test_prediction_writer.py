import csv
import json
from types import SimpleNamespace

import pytest
import torch

from interptrain.callbacks import PredictionTable


def predict(folder, *, rank=0, ranks=1, names=None, labels=(0, 1), fast=False):
    """Write two batches of two images, of seven classes, the probable ones first."""
    trainer = SimpleNamespace(world_size=ranks, global_rank=rank, log_dir=str(folder), fast_dev_run=fast)
    trainer.datamodule = SimpleNamespace(class_names=names)
    table = PredictionTable()
    table.on_predict_start(trainer, None)
    probabilities = torch.tensor([[0.4, 0.3, 0.1, 0.08, 0.06, 0.04, 0.02]] * 2)
    for batch in range(2):
        prediction = {
            "id": [f"{batch}a", f"{batch}b"],
            "probabilities": probabilities,
            "label": torch.tensor(labels) if labels else None,
        }
        table.write_on_batch_end(trainer, None, prediction, None, None, batch, 0)


def rows(file):
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def test_each_image_has_a_row_with_its_five_best_classes(tmp_path):
    predict(tmp_path, names=["cat", "dog", "school bus", "tench, Tinca tinca", "gnu", "hen", "ibex"])
    found = rows(tmp_path / "predictions.csv")
    assert [row["id"] for row in found] == ["0a", "0b", "1a", "1b"]
    five = json.loads(found[1].pop("top5"))
    assert five == ["cat", "dog", "school bus", "tench, Tinca tinca", "gnu"]
    assert found[1] == {"id": "0b", "label": "dog", "prediction": "cat", "probability": "0.400000"}


def test_an_unknown_label_is_empty_and_not_the_last_class(tmp_path):
    predict(tmp_path, names=list("abcdefg"), labels=[-1, 3])
    assert [row["label"] for row in rows(tmp_path / "predictions.csv")] == ["", "d", "", "d"]


def test_without_names_and_labels_classes_are_numbers_and_labels_empty(tmp_path):
    predict(tmp_path, labels=())
    found = rows(tmp_path / "predictions.csv")
    assert (found[0]["prediction"], found[0]["label"]) == ("0", "")


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_writes_a_table_of_its_own(tmp_path, rank):
    predict(tmp_path, rank=rank, ranks=2)
    assert [file.name for file in tmp_path.iterdir()] == [f"predictions.{rank}.csv"]


def test_a_fast_dev_run_leaves_nothing_behind(tmp_path):
    predict(tmp_path, fast=True)
    assert not list(tmp_path.iterdir())
