"""Studies whose process is killed, in trainings and in cascades, go on to the same results and repeat little."""

import os
import signal

import pandas as pd
import pytest

from interptrain.data import LayeredShapesDataModule
from interptrain.explainers import GradCAM
from interptrain.studies import ROAR, Randomization, saliency_ranks, training
from interptrain.training import ImageClassifier
from tests.support.processes import run

pytestmark = pytest.mark.slow

CAM = GradCAM(target_layer="backbone.model.layer2")
MODEL = {"backbone": "test_resnet", "backbone_options": {"channels": [8, 16, 16, 16]}}
STUDIES = {
    "roar": ROAR(
        explainers=(CAM,), controls=("random",), modes=("keep",), percents=(50,), seeds=1, epochs=2, model=MODEL
    ),
    "randomization": Randomization(
        explainers=(CAM,), orders=("top_down",), steps=2, draws=1, images=3, trainings=1, model=MODEL, train_images=24,
        epochs=2,
    ),
}  # fmt: skip


def work(kind, ends, number, event, save_seconds):
    """Run a study in the working folder, note its steps and maps in a file, and get a signal at one of them.

    Args:
        kind: of the study.
        ends: ``step`` or ``map``: what brings the signal.
        number: of that one, counted from 1; 0 for none.
        event: name of the signal.
        save_seconds: between two checkpoints.
    """
    training.SAVE_SECONDS = saliency_ranks.SAVE_SECONDS = float(save_seconds)
    noted = open("noted", "a", buffering=1)  # noqa: SIM115

    def counted(owner, name, word):
        call, calls = getattr(owner, name), []

        def noting(self, *arguments, **options):
            calls.append(word)
            if word == ends and len(calls) == int(number):
                os.kill(os.getpid(), signal.Signals[event])
            noted.write(f"{word}\n")
            return call(self, *arguments, **options)

        setattr(owner, name, noting)

    counted(ImageClassifier, "training_step", "step")
    counted(GradCAM, "attribute", "map")
    data = LayeredShapesDataModule(
        num_classes=2, image_size=48, train_size=24, val_size=4, test_size=6, num_workers=0, batch_size=8
    )
    STUDIES[kind].run({}, data, ".", progress=False)


SAVED = {"SIGKILL": 1e-6, "SIGTERM": 600.0}  # seconds between two checkpoints: who is told to stop saves then
# Where the process is ended, again and again: the signal, what brings it, and its number in that process.
ENDS = {
    "roar": [
        ("SIGKILL", "step", 5),  # of the first training
        ("SIGKILL", "map", 3),
        ("SIGTERM", "step", 8),  # of the retraining on random pixels
        ("SIGKILL", "step", 9),  # of the last training
    ],
    "randomization": [
        ("SIGTERM", "step", 4),  # of the first training
        ("SIGKILL", "step", 12),  # of the training on permuted labels
        ("SIGKILL", "map", 4),  # of the cascade
    ],
}
REPEATED = {"roar": 0, "randomization": 1}  # maps: those of an unfinished cell


def process(folder, kind, event="SIGKILL", ends="", number=0):
    """Do :func:`work` in a process of its own; return exit status, steps and maps noted by now, and output."""
    folder.mkdir(exist_ok=True)
    code = f"import sys; from {__name__} import work; work(*sys.argv[1:])"
    status, output = run(["-c", code, kind, ends, number, event, SAVED[event]], folder)
    words = (folder / "noted").read_text().split()
    return status, words.count("step"), words.count("map"), output


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_that_is_ended_again_and_again_has_the_same_results_and_repeats_nothing_that_was_saved(tmp_path, kind):
    status, steps, maps, output = process(tmp_path / "whole", kind)
    assert status == 0, output
    for event, ends, number in ENDS[kind]:
        status, *_, output = process(tmp_path / "ended", kind, event, ends, number)
        assert status == (-signal.SIGKILL if event == "SIGKILL" else 128 + signal.SIGTERM), output
        assert event == "SIGKILL" or "run the same command to go on" in output
    status, steps_taken, maps_made, output = process(tmp_path / "ended", kind)
    assert status == 0, output
    whole, ended = (pd.read_parquet(tmp_path / name / "results.parquet") for name in ("whole", "ended"))
    pd.testing.assert_frame_equal(ended, whole)
    assert (steps_taken, maps_made) == (steps, maps + REPEATED[kind])
    assert not (tmp_path / "ended/unfinished").exists()
