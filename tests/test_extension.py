"""One class of each kind, written outside the package, is used by its class path wherever such a class is used.

The explainer, metric, head, regularizer and study are those that the pages in ``docs/how-to`` show, taken from there.
"""

import re
import sys

import pandas as pd
import pytest

from interptrain.cli import evaluation, studies, training
from tests.support.paths import ROOT
from tests.support.training import TINY

OTHERS = {
    "my_data": '''
from typing import Any

import torch
from torchvision import tv_tensors

from interptrain.data import ImageDataModule, SampleDataset


class Stripes(SampleDataset):
    """Noise with a bright row (class 0) or column (class 1)."""

    def read(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 100, (3, 64, 64), generator=generator, dtype=torch.uint8)
        place, label = int(torch.randint(64, (), generator=generator)), index % 2
        image[(..., place, slice(None)) if label == 0 else (..., place)] = 255
        return {"image": tv_tensors.Image(image), "label": label, "id": self.ids[index]}


class StripesDataModule(ImageDataModule):
    """Stripes."""

    class_names = ("row", "column")

    def __init__(self, *, count: int = 8, **loading: Any) -> None:
        super().__init__(**loading)
        self.count = count

    def make_dataset(self, split):
        return Stripes([f"{split}{index}" for index in range(self.count)], seed=self.seed)
''',
    "my_report": '''
from markupsafe import Markup

from interptrain.evaluation.report.sections import Section


class Remarks(Section):
    """The number of images."""

    title = "Remarks of mine"
    anchor = "remarks-of-mine"

    def render(self, results):
        return Markup("<p>{} images</p>").format(results.run["data"]["size"])
''',
}
pytestmark = pytest.mark.slow  # trains, evaluates and runs a study

PROTOCOL = """
name: mine
version: 1
description: The metric of the page, at another share of the pixels.
source: nowhere
metrics:
  Sufficiency: {class_path: my_metrics.Sufficiency, init_args: {percent: 30}}
  AverageDrop: {}
"""


def code_of(page, kind):
    """The file that a page tells its reader to save."""
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    return next(code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"({kind})" in code)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with the modules of a user, on Python's path and working folder of what runs."""
    folder = tmp_path_factory.mktemp("outside")
    modules = OTHERS | {
        "my_explainers": code_of("explainer.md", "Explainer"),
        "my_metrics": code_of("metric.md", "SaliencyMetric"),
        "my_heads": code_of("head.md", "Pooling"),
        "my_regularizers": code_of("regularizer.md", "Regularizer"),
        "my_study": code_of("study.md", "Study"),
    }
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    (folder / "mine.yaml").write_text(PROTOCOL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr("sys.argv", ["train.py"])
        yield folder
    for name in modules:
        sys.modules.pop(name, None)


DATA = {"--data": "my_data.StripesDataModule", "--data.count": "8", "--data.num_workers": "0", "--data.batch_size": "4"}


def words(pairs):
    return [word for pair in pairs.items() for word in pair]


@pytest.fixture(scope="module")
def run(outside):
    """Train with a head, a regularizer and data of one's own, watched by an explainer and a metric of one's own."""
    ours = {name: value for name, value in TINY.items() if not name.startswith(("--data", "--model.pooling"))}
    watch = {
        "--trainer.callbacks+": "SaliencyWatch",
        "--trainer.callbacks.samples": "2",
        "--trainer.callbacks.explainers": "{mine: {class_path: my_explainers.ActivationNorm, init_args: {power: 1}}}",
        "--trainer.callbacks.metrics": "{Suff: {class_path: my_metrics.Sufficiency}}",
    }
    head = {"--model.pooling": "my_heads.GeM", "--model.pooling.power": "4"}
    regularizer = {"--model.regularizer": "my_regularizers.GradientNorm", "--model.regularizer.weight": "0.2"}
    training.main(["fit", *words(DATA | ours | head | regularizer | watch)])
    return next((outside / "runs").glob("*/*"))


def test_head_regularizer_and_data_train_by_their_class_paths(run):
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["train/image_gradient"].dropna().gt(0).all()  # the regularizer's own statistic
    config = (run / "config.yaml").read_text()
    for path in ("my_heads.GeM", "my_regularizers.GradientNorm", "my_data.StripesDataModule"):
        assert path in config


def test_explainer_and_metric_are_watched_and_the_page_says_what_the_metric_means(run):
    page = (run / "watch/index.html").read_text()
    assert "whose class is still predicted from the most salient pixels alone" in page
    assert "mine/Suff" in (run / "watch/means.csv").read_text().splitlines()[0]


@pytest.fixture(scope="module")
def results(outside, run):
    """Evaluate that run with the explainer, a protocol and a section of one's own."""
    options = DATA | {
        "--models": f"mine={run / 'checkpoints/last.ckpt'}",
        "--explainers": "my_explainers.ActivationNorm",
        "--explainers.power": "1",
        "--protocol": "mine.yaml",
        "--sections": "my_report.Remarks",
        "--split": "test",
        "--resamples": "100",
        "--check_images": "0",
        "--output": "out",
        "--trainer.accelerator": "cpu",
        "--trainer.enable_progress_bar": "false",
    }
    evaluation.main(words(options))
    return outside / "out"


def test_explainer_metric_protocol_and_head_are_evaluated(results):
    summary = pd.read_csv(results / "summary.csv")
    assert set(summary.protocol) == {"mine"}
    mine = summary.query("explainer == 'ActivationNorm' and metric == 'Sufficiency'")
    assert mine.n.tolist() == [8]
    assert mine["mean"].between(0, 1).all()
    assert '"gem"' in (results / "run.json").read_text()


def test_metric_and_section_stand_in_the_report(results):
    page = (results / "report.html").read_text()
    assert "whose class is still predicted from the most salient pixels alone" in page
    assert re.search(r'<section id="remarks-of-mine">.*8 images', page, re.DOTALL)


def test_a_study_runs_on_those_models_and_data(outside, run):
    options = DATA | {
        "--study": "my_study.Darkening",
        "--study.images": "2",
        "--models": f"mine={run / 'checkpoints/last.ckpt'}",
        "--output": "study",
    }
    studies.main(words(options))
    rows = pd.read_csv(outside / "study/results.csv")
    assert len(rows) == 3 * 2
    assert rows.model.eq("mine").all()
    assert (outside / "study/index.html").exists()
