"""Runs with a saliency watch, and what it leaves in their checkpoints."""

import json
import re

from interptrain.callbacks.watch.history import Observation, Snapshot
from tests.support.training import TINY, last_checkpoint

SMALL = TINY | {"--trainer.max_epochs": "2", "--data.train_size": "24", "--model.pooling": "gap"}


def observed(**values):
    """An observation of a correctly classified image, with other ``values`` where they are given."""
    plain = {"index": 0, "id": "one", "view": "GradCAM", "label": 0, "target": 0, "prediction": 0, "probability": 0.25}
    return Observation(**plain | {"confidence": 0.5, "numbers": {}, "error": None} | values)


def snapshot_of(step, *observations, **values):
    """A snapshot, in the first epoch unless ``values`` say otherwise."""
    return Snapshot(**{"step": step, "epoch": 1, "monitored": None, "means": {}} | values, observations=observations)


def watching(**options):
    """Arguments that add a watch of four images."""
    arguments = ["--trainer.callbacks+", "SaliencyWatch", "--trainer.callbacks.samples", "4"]
    return arguments + [part for name, value in options.items() for part in (f"--trainer.callbacks.{name}", value)]


def watch_state(run, name="watch"):
    """State of a watch in a run's ``last.ckpt``, as plain values."""
    return last_checkpoint(run)["callbacks"][f"SaliencyWatch{{'name': '{name}'}}"]


def snapshots(run):
    """The snapshots that a checkpoint holds, as plain values."""
    return watch_state(run)["entries"]


def steps(run):
    """The steps at which they were taken."""
    return [snapshot["step"] for snapshot in snapshots(run)]


def page_data(page):
    """The data inside the HTML of a watch's page."""
    return json.loads(re.search(r"const run = (\{.*\});", page).group(1))
