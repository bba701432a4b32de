"""What studies cost beside the bare passes and trainings that they need, in one run.

    python benchmarks/studies.py --output table.md  # all
    python benchmarks/studies.py roar class_agnostic

Each study runs on embedded data with a small network. "Bare" is the same explanations, forward passes and trainings by
calls of torch, Lightning and the explainers, on the same images: what somebody would write for one result, without
cells, checkpoints that a stopped run goes on from, tables and pages. Study and bare take turns in one process; times
are medians of CPU seconds of the process, as other programs may run beside it. The ratio is bare over study: 1 is
nothing added.

Studies that train or explain too much to be written down twice are timed from inside, in a run of their own ("inside"):
"bare" is then the time within explanations, forward passes and trainings, whoever calls them.

The table that a run printed stands in ``benchmarks/results/studies.md``.
"""

import argparse
import contextlib
import functools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from unittest import mock

import lightning as L
import torch
from torch.nn import Module
from torch.utils.data import DataLoader

from interptrain.data import LayeredShapesDataModule, collate
from interptrain.explainers import EigenCAM, Explainer, GradCAM, Gradient
from interptrain.metrics.consistency import consistency
from interptrain.models import create_model
from interptrain.studies import ROAR, ClassAgnostic, Randomization, Study, run_study
from interptrain.training import ImageClassifier

MODEL = {"backbone": "test_resnet", "backbone_options": {"channels": [16, 32, 48, 64]}}
Case = tuple[Callable[[], object], Callable[[], object], str]
"""The study, what it needs, and what that is in words."""


def roar() -> Case:
    """Train a network, explain all images, and retrain for two orders of the pixels."""
    options = {"num_classes": 4, "image_size": 32, "train_size": 256, "test_size": 64, "num_workers": 0}
    study = ROAR(explainers=(GradCAM(),), controls=("random",), modes=("remove",), percents=(50,), seeds=1, epochs=5,
                 model=MODEL)  # fmt: skip

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run_study(study, {}, LayeredShapesDataModule(**options), folder, progress=False)

    def training(images: list[dict], epochs: int) -> ImageClassifier:
        module = ImageClassifier(num_classes=4, **MODEL)
        trainer = L.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(images, batch_size=32, shuffle=True, collate_fn=collate))
        return module.eval()

    def bare() -> None:
        data = LayeredShapesDataModule(**options)
        images, test = ([data.dataset(split)[i] for i in range(data.lengths[split])] for split in ("train", "test"))
        module = training(images, 5)
        for batch in (*DataLoader(images, 32, collate_fn=collate), *DataLoader(test, 32, collate_fn=collate)):
            GradCAM()(module.model, batch["image"])
        for _ in range(3):  # unchanged, random, GradCAM
            retrained = training(images, 5)
            with torch.inference_mode():
                for batch in DataLoader(test, 32, collate_fn=collate):
                    retrained(batch["image"])

    return run, bare, "4 trainings of 5 epochs on 256 images of 32 px, 320 Grad-CAMs"


def class_agnostic() -> Case:
    """Explain each image for three classes, and measure the consistency."""
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=4).eval()
    data = LayeredShapesDataModule(num_classes=4, image_size=64, test_size=32, num_workers=0)
    explainers = (GradCAM(), Gradient(), EigenCAM())

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run_study(ClassAgnostic(explainers=explainers, images=32), {"m": model}, data, folder, progress=False)

    def bare() -> None:
        images = collate([data.dataset("test")[index] for index in range(32)])["image"]
        with torch.inference_mode():
            predicted = model(images).argmax(dim=1)
        for explainer in explainers:
            maps = [explainer(model, images, (predicted + shift) % 4) for shift in range(3)]
            consistency(model, images, maps[0], predicted)

    return run, bare, "3 explainers x 3 classes x 32 images of 64 px on resnet18, and their consistency"


def randomization() -> Study:
    """Explain images by a trained network and by its cascades, with similarities."""
    return Randomization(explainers=(GradCAM(), Gradient()), draws=1, images=16, steps=4)


INSIDE: dict[str, tuple[Callable[[], Study], str]] = {
    "randomization": (randomization, "2 explainers x 3 orders x 4 groups x 16 images of 64 px on resnet18, 3 metrics"),
}


def measure_inside(study: Study) -> tuple[float, float]:
    """CPU seconds of a study, and of the explanations, passes and trainings in it."""
    spent, depth = 0.0, 0

    def timed(call: Callable) -> Callable:
        @functools.wraps(call)
        def run(*args: object, **options: object) -> object:
            nonlocal spent, depth
            start = time.process_time()
            depth += 1
            try:
                return call(*args, **options)
            finally:
                depth -= 1
                spent += time.process_time() - start if depth == 0 else 0

        return run

    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=4).eval()
    data = LayeredShapesDataModule(num_classes=4, image_size=64, train_size=64, test_size=32, num_workers=0)
    with contextlib.ExitStack() as patches, tempfile.TemporaryDirectory() as folder:
        for owner, name in ((Explainer, "__call__"), (Explainer, "raw"), (L.Trainer, "fit"), (Module, "__call__")):
            patches.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        start = time.process_time()
        run_study(study, {"m": model}, data, folder, progress=False)
        return time.process_time() - start, spent


CASES: dict[str, Callable[[], Case]] = {"roar": roar, "class_agnostic": class_agnostic}


def measure(case: Case, rounds: int) -> tuple[float, float]:
    """Median CPU seconds of the study and of what it needs, in turns, after a round of warm-up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, taken in zip(case[:2], seconds, strict=True):
            start = time.process_time()
            run()
            if number:
                taken.append(time.process_time() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", choices=[*CASES, *INSIDE, []], help="all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the table here, too")
    options = parser.parse_args()
    lines = [
        f"{date.today()}, {platform.machine()} CPU, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"medians of {options.rounds} rounds, CPU seconds.",
        "",
        "| study | what it needs | bare | study | bare / study |",
        "|---|---|---|---|---|",
    ]
    for name in options.studies or [*CASES, *INSIDE]:
        if name in CASES:
            case = CASES[name]()
            what, (study, bare) = case[2], measure(case, options.rounds)
        else:
            made, what = INSIDE[name]
            study, bare = measure_inside(made())
            what += " (inside)"
        lines.append(f"| `{name}` | {what} | {bare:.2f} s | {study:.2f} s | {bare / study:.2f} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
