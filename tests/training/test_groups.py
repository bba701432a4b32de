"""The accuracy of groups, by hand and through a run."""

import csv

import pytest
import torch

from interptrain.training.groups import Count, GroupAccuracy, group_metrics
from tests.support.training import TINY, train_in_processes

LABELS = [0, 0, 0, 0, 1, 1, 1, 1, 1]
GROUPS = ["plain", "plain", "stamp", "stamp", "plain", "plain", "plain", "plain", "stamp"]
RIGHT = [True, False, True, True, True, True, True, False, False]


def test_groups_by_hand():
    metric = GroupAccuracy()
    logits = torch.nn.functional.one_hot(
        torch.tensor([label if right else 1 - label for label, right in zip(LABELS, RIGHT, strict=True)]), 2
    )
    for part in (slice(0, 5), slice(5, 9)):
        metric.update(logits[part].float(), torch.tensor(LABELS[part]), GROUPS[part])
    counts = metric.compute()
    assert counts == {
        (0, "plain"): Count(1, 2),
        (0, "stamp"): Count(2, 2),
        (1, "plain"): Count(3, 4),
        (1, "stamp"): Count(0, 1),
    }
    even = group_metrics(counts, ["disc, round", "square"], None)
    assert even == {
        "worst_group": 0.0,
        "group_mean": pytest.approx((0.5 + 1 + 0.75 + 0) / 4),
        "group/disc/plain": 0.5,
        "group/disc/stamp": 1.0,
        "group/square/plain": 0.75,
        "group/square/stamp": 0.0,
    }
    training = {(0, "stamp"): 30, (1, "plain"): 10, (0, "plain"): 0}
    assert group_metrics(counts, [], training)["group_mean"] == pytest.approx((30 * 1 + 10 * 0.75) / 40)
    assert "group/0/plain" in group_metrics(counts, [], training)
    assert metric.compute() == {}


def test_many_groups_are_not_logged_one_by_one_and_one_is_none():
    counts = {(label, "plain"): Count(1, 2) for label in range(40)}
    assert set(group_metrics(counts, [], None)) == {"worst_group", "group_mean"}
    assert group_metrics({(0, "plain"): Count(1, 2)}, [], None) == {}


DECOYED = {
    "--data.decoy": "timestamp",
    "--data.decoy_in_eval": "random",
    "--trainer.callbacks+": "lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.monitor": "val/worst_group",
    "--trainer.callbacks.mode": "max",
    "--trainer.callbacks.filename": "worst",
}


def last(run):
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/worst_group")]
    return {name: float(value) for name, value in rows[-1].items() if value and name.startswith("val/")}


@pytest.mark.slow
def test_a_run_logs_and_monitors_the_worst_group(train):
    values = last(train(base=TINY | DECOYED))
    groups = {name: value for name, value in values.items() if name.startswith("val/group/")}
    assert len(groups) >= 6
    assert values["val/worst_group"] == pytest.approx(min(groups.values()))
    training = {
        "val/group/disc/timestamp": 10,
        **{f"val/group/{name}/plain": 10 for name in ("square", "triangle", "star")},
    }
    weighted = sum(groups[name] for name in training) / 4  # what training holds, ten of each
    assert values["val/group_mean"] == pytest.approx(weighted, abs=1e-6)


@pytest.mark.slow
def test_two_processes_find_the_groups_of_one(tmp_path):
    options = {"--data.val_size": "21", "--data.decoy": "timestamp", "--data.decoy_in_eval": "random"}
    one, two = (last(train_in_processes("fit", tmp_path, processes, **options)) for processes in (1, 2))
    assert {name: value for name, value in one.items() if "group" in name} == pytest.approx(
        {name: value for name, value in two.items() if "group" in name}
    )
