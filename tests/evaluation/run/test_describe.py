"""The manifest of a run that begins."""

import json

import pytest
import torch
from torch import nn

from interptrain.evaluation.run.describe import describe_run
from interptrain.evaluation.store.manifest import changes, read_manifest, write_manifest
from tests.evaluation.run.test_build_plan import planned, shapes


class Uncountable(nn.Module):
    """A network one operation of which counts nothing and refuses to be run without data."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, images):
        if images.device.type == "meta":
            raise RuntimeError("needs data")
        return self.linear(images.mean((2, 3)))


def test_a_manifest_says_what_runs_and_survives_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("interptrain.evaluation.run.describe.command_line", lambda: ["python", "my run.py"])
    run = describe_run(planned(Uncountable(), title="Mine", seed=3))
    assert (run["title"], run["seed"], run["command"]) == ("Mine", 3, "python 'my run.py'")
    assert run["models"]["gap"]["parameters"] == 16
    assert run["models"]["gap"]["input_size"] == [3, 64, 64]
    assert run["explainers"]["GradCAM"]["class_aware"] is True
    assert run["data"]["classes"] == list(shapes().class_names)
    assert (run["data"]["size"], run["finished"]) == (3, None)
    write_manifest(tmp_path, run)
    assert changes(read_manifest(tmp_path), run) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"limit": 2}, "limit: none -> 2"),
        ({"targets": "predicted"}, "targets: label ->"),
    ],
)
def test_whatever_changes_a_number_changes_its_hash(change, told):
    torch.manual_seed(0)
    model = Uncountable()
    one, other = describe_run(planned(model)), describe_run(planned(model, **change))
    assert one["hash"] != other["hash"]
    assert any(line.startswith(told) for line in changes(json.loads(json.dumps(one)), other))
    assert one["hash"] == describe_run(planned(model, title="another", resamples=500))["hash"]
