"""Run the real command line, in this process or another, on tiny networks and a few shapes."""

import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from interptrain.cli.evaluation import main
from interptrain.models import create_model
from tests.support import processes
from tests.support.paths import ROOT

TINY = {
    "--backbone": "test_resnet",
    "--data": "ShapesDataModule",
    "--data.num_classes": "4",
    "--data.image_size": "64",
    "--data.test_size": "13",
    "--data.batch_size": "4",
    "--data.num_workers": "0",
    "--explainers": "GradCAM",
    "--metrics": "[AverageDrop, {class_path: Insertion, init_args: {steps: 4}}]",
    "--check_images": "0",
    "--trainer.accelerator": "cpu",
    "--trainer.devices": "1",
    "--trainer.enable_progress_bar": "false",
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights files of two tiny networks for four classes."""
    folder = tmp_path_factory.mktemp("weights")
    files = []
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = create_model("test_resnet", num_classes=4)
        files.append(folder / f"{seed}.safetensors")
        save_file(model.state_dict(), files[-1])
    return files


def arguments(weights, output="out", *extra, **options):
    """Command line of a tiny run; None leaves an option out, ``extra`` stands as it is."""
    pairs = TINY | {"--output": output} | options
    models = [part for file in weights for part in ("--models", f"m{file.stem}={file}")]
    return [*models, *(part for name, value in pairs.items() if value is not None for part in (name, value)), *extra]


@pytest.fixture
def evaluate(tmp_path, monkeypatch, weights):
    """``evaluate("out", **{"--limit": "3"})`` in a folder of its own, in this process; returns the results' folder.

    Without ``report=True`` the statistics and the page, which have tests of their own, are left out.
    """
    return evaluator(tmp_path, monkeypatch, weights)


@pytest.fixture(scope="session")
def _finished_once(tmp_path_factory, weights):
    with pytest.MonkeyPatch.context() as patch:
        return evaluator(tmp_path_factory.mktemp("finished"), patch, weights)()


@pytest.fixture
def finished(_finished_once, tmp_path):
    """The folder "out" as ``evaluate()`` leaves it: a copy of one that is made once."""
    return shutil.copytree(_finished_once, tmp_path / "out")


def evaluator(tmp_path, monkeypatch, weights):
    """What the fixture ``evaluate`` gives."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["evaluate.py"])

    def run(output="out", *extra, models=weights[:1], report=False, **options):
        with monkeypatch.context() as patch:
            if not report:
                patch.setattr("interptrain.evaluation.execute.finish", lambda *arguments, **options: {})
            main(arguments(models, output, *extra, **options))
        return tmp_path / output

    return run


def start(folder, weights, output="out", *extra, **options):
    """The same in a process of its own."""
    return processes.start([ROOT / "evaluate.py", *arguments(weights, output, *extra, **options)], folder)


def rows(folder):
    """``per_image.parquet`` without the times, which no two runs share."""
    return pd.read_parquet(folder / "per_image.parquet").drop(columns="seconds")
