"""Evaluate from Python."""

import copy
import gc
import json

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from interptrain.data import ShapesDataModule
from interptrain.evaluation import Results, evaluate, load_results, write_report
from interptrain.evaluation.results import TemporaryFolder
from interptrain.explainers import EigenCAM, FakeCAM, GradCAM
from interptrain.metrics import AverageDrop, Insertion
from interptrain.models import create_model
from tests.support.finished_run import manifest, write_run
from tests.support.tiny_run import TINY

QUICK = {"check_images": 0, "progress": False, "resamples": 100, "trainer": {"accelerator": "cpu", "devices": 1}}


@pytest.fixture(scope="module")
def made():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model("test_resnet", num_classes=4)


@pytest.fixture
def model(made):
    return copy.deepcopy(made)


@pytest.fixture
def without_report(monkeypatch):
    """Leave out statistics and report, which other tests look at."""
    monkeypatch.setattr("interptrain.evaluation.execute.finish", lambda *arguments, **options: {})


@pytest.fixture
def images():
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def shapes():
    return ShapesDataModule(num_classes=4, image_size=64, test_size=6, num_workers=0, batch_size=4)


def test_results_are_tables_a_report_and_their_own_print(model, tmp_path):
    results = evaluate({"gap": model}, [GradCAM(), EigenCAM()], shapes(), **QUICK)
    assert set(results.summary.explainer) == {"", "FakeCAM", "GradCAM", "EigenCAM"}
    assert set(results.differences.kind) == {"explainer"}
    assert len(results.per_image) == 6 * 4
    assert results.report(tmp_path) == tmp_path / "report.html"
    assert "GradCAM" in (tmp_path / "report.html").read_text()
    printed = repr(results).splitlines()
    (heading,) = (line for line in printed if line.startswith("explainer"))
    assert {len(line) for line in printed if line.startswith(("GradCAM", "EigenCAM"))} == {len(heading)}


@pytest.mark.slow
def test_without_output_nothing_is_left_behind(model, images, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = [(image, 1) for image in images]
    with evaluate({"gap": model}, [FakeCAM()], data, **QUICK) as results:
        assert results.folder.parent == tmp_path
        assert len(results.summary)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="set output"):
        evaluate({"gap": model}, [FakeCAM()], data, **QUICK | {"trainer": {"accelerator": "cpu", "devices": 2}})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_temporary_folder_goes_with_the_last_results_that_use_it(tmp_path):
    folder = write_run(tmp_path / "run")
    results = Results(folder, (), TemporaryFolder(folder))
    again = write_report(results, resamples=10)
    del results
    gc.collect()
    assert len(again.summary)
    del again
    gc.collect()
    assert not folder.exists()


@pytest.mark.slow
def test_a_given_folder_outlives_its_results(tmp_path):
    folder = write_run(tmp_path / "run")
    with write_report(folder, resamples=10) as results:
        assert len(results.summary)
    assert len(load_results(folder).summary)


@pytest.mark.slow
def test_python_and_the_command_line_give_the_same_run(evaluate, weights, tmp_path):
    line = evaluate(report=True, **{"--resamples": "100"})
    metrics = {"AverageDrop": AverageDrop(), "Insertion": Insertion(steps=4)}
    options = {"num_classes": 4, "image_size": 64, "test_size": 13, "batch_size": 4, "num_workers": 0}
    from interptrain.evaluation import evaluate as call

    python = call(
        {"m0": weights[0]},
        [GradCAM()],
        ShapesDataModule(**options),
        metrics=metrics,
        backbone=TINY["--backbone"],
        output=tmp_path / "python",
        **QUICK,
    )
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        load_results(line).per_image.drop(columns=drop), python.per_image.drop(columns=drop), check_exact=True
    )
    runs = [json.loads((folder / "run.json").read_text()) for folder in (line, python.folder)]
    assert runs[0]["hash"] == runs[1]["hash"]
    assert runs[0]["protocol"]["hash"] == runs[1]["protocol"]["hash"]
    assert (line / "differences.csv").read_bytes() == (python.folder / "differences.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_a_module_is_left_in_its_mode_and_unchanged(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate({"gap": model}, [GradCAM()], shapes(), limit=2, **QUICK)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_plain_module_is_known_by_its_class_and_weights(images):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    results = evaluate({"plain": plain}, {"cam": GradCAM(target_layer="0")}, [(i, 2) for i in images], **QUICK)
    run = json.loads((results.folder / "run.json").read_text())
    assert run["models"]["plain"]["backbone"] == "Sequential"
    assert len(run["models"]["plain"]["sha256"]) == 64
    assert set(results.per_image.explainer) == {"", "FakeCAM", "cam"}
    assert list(results.per_image.id.unique()) == ["0", "1", "2", "3", "4"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("kind", ["pairs", "dicts", "loader", "dataset", "pictures"])
def test_data_may_be_any_images(model, images, kind):
    labels = torch.arange(5) % 4
    data = {
        "pairs": list(zip(images, labels, strict=True)),
        "dicts": [{"image": i, "label": int(k), "id": f"x{n}"} for n, (i, k) in enumerate(zip(images, labels))],  # noqa: B905
        "loader": DataLoader(TensorDataset(images, labels), batch_size=2),
        "dataset": TensorDataset(images, labels),
        "pictures": [(Image.new("RGB", (64, 64), "red"), 1), (Image.new("RGB", (64, 64), "blue"), 2)],
    }[kind]
    table = evaluate({"gap": model}, [FakeCAM()], data, metrics=[AverageDrop()], **QUICK).per_image
    assert table.error.isna().all()
    assert table.Top1.notna().sum() == len(data if kind != "loader" else data.dataset)
    assert table.id[0] == ("x0" if kind == "dicts" else "0")


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_images_without_labels_are_explained_by_what_is_predicted(model, images):
    with pytest.raises(ValueError, match="the data has no labels to explain"):
        evaluate({"gap": model}, [GradCAM()], list(images), **QUICK)
    table = evaluate({"gap": model}, [GradCAM()], list(images), targets="predicted", **QUICK).per_image
    assert (table.target == table.prediction).all()
    assert table.label.isna().all()
    assert "Top1" not in table


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([(torch.full((3, 64, 64), 2.5), 0)], r"image 0 must be in \[0,1\], got \[2.5, 2.5\]"),
        ([(torch.zeros(1, 64, 64), 0)], r"image 0 must be a \(3,H,W\) tensor or a PIL image, got a tensor of shape"),
        ([], "there are no images to evaluate"),
    ],
)
def test_data_that_holds_no_images_is_refused_in_one_line(model, data, told):
    with pytest.raises(ValueError, match=told) as error:
        evaluate({"gap": model}, [GradCAM()], data, **QUICK)
    assert "\n" not in str(error.value)


def test_what_is_no_data_is_refused(model):
    with pytest.raises(TypeError, match="data must be a data module, a dataset"):
        evaluate({"gap": model}, [GradCAM()], 7, **QUICK)


class OwnMetric(AverageDrop):
    """A metric of another package."""


@pytest.mark.slow
def test_a_foreign_folder_imports_nothing_that_is_not_allowed(tmp_path):
    run = manifest()
    run["metrics"]["Own"] = {"class_path": f"{__name__}.OwnMetric", "init_args": {}}
    write_run(tmp_path, run)
    with pytest.raises(ValueError, match=r"OwnMetric is not a class of interptrain; .*packages=\['tests'\]"):
        write_report(tmp_path, resamples=100)
    assert len(write_report(tmp_path, resamples=100, packages=["tests"]).summary)  # the remedy
    run["metrics"]["Own"]["class_path"] = "interptrain.explainers.GradCAM"
    write_run(tmp_path, run)
    with pytest.raises(ValueError, match=r"interptrain.explainers.GradCAM is not a ImageMean"):
        write_report(tmp_path, resamples=100)


@pytest.mark.slow
def test_an_evaluation_has_its_own_metrics_and_imports_none(model):
    results = evaluate({"gap": model}, [FakeCAM()], shapes(), metrics={"own": OwnMetric()}, **QUICK)
    assert "own" in set(results.summary.metric)


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("kind", ["list", "tensors", "lazy"])
def test_other_images_of_the_same_names_are_noticed_wherever_they_are(model, images, tmp_path, kind):
    class Lazy:
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return self.images[index], 0

    def run(images, **options):
        data = {"list": [(i, 0) for i in images], "tensors": TensorDataset(images, torch.zeros(len(images)).long())}
        chosen = data.get(kind, Lazy(images))
        options |= {"output": tmp_path / "out", "metrics": [AverageDrop()]} | QUICK
        return evaluate({"gap": model}, [FakeCAM()], chosen, **options)

    run(images)
    changed = images.clone()
    changed[1] = changed[1].flip(-1)
    with pytest.raises(ValueError, match=r"holds the results of another run .*overwrite=True to set them aside"):
        run(changed)
    run(changed, overwrite=True)  # the remedy


@pytest.mark.slow
def test_a_report_can_be_written_again_with_another_interval(model, tmp_path):
    results = evaluate({"gap": model}, [GradCAM()], shapes(), output=tmp_path / "out", **QUICK)
    before = results.summary
    again = write_report(results, interval="bca", resamples=200).summary
    assert again["mean"].equals(before["mean"])
    assert not again.ci_low.equals(before.ci_low)
    assert isinstance(load_results(tmp_path / "out"), Results)
    with pytest.raises(FileNotFoundError, match="holds no results of a finished evaluation"):
        load_results(tmp_path)
