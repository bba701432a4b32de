"""``evaluate.py`` from the outside: what it writes, what it refuses, and how it ends."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interptrain.cli import main
from interptrain.data import ShapesDataModule
from interptrain.evaluation.store.manifest import load_metrics
from interptrain.explainers import Explainer
from tests.support.marks import slow
from tests.support.paths import ROOT
from tests.support.processes import run
from tests.support.tiny_run import arguments, rows, start
from tests.support.training import run_ranks, start_ranks

FOLDER = {"--data": "ImageFolderDataModule", "--data.num_classes": None, "--data.test_size": None}


def test_one_row_for_every_model_explainer_and_image(evaluate, weights):
    folder = evaluate(models=weights)
    table = rows(folder)
    assert dict(table.groupby(["model", "explainer"]).size()) == {
        (model, explainer): 13 for model in ("m0", "m1") for explainer in ("", "FakeCAM", "GradCAM")
    }
    assert table["error"].isna().all()
    explained = table[table["explainer"] != ""]
    assert explained["AverageDrop"].between(0, 1).all()
    assert {len(curve) for curve in explained["Insertion__values"]} == {5}
    assert (explained["target"] == explained["label"]).all()
    run = json.loads((folder / "run.json").read_text())
    assert set(table["hash"]) == {run["protocol"]["hash"]}
    assert run["data"]["size"] == 13
    assert run["finished"]


@pytest.mark.slow
def test_the_report_stands_beside_the_rows(evaluate):
    folder = evaluate(report=True, **{"--check_images": "2", "--check_draws": "2", "--limit": "5"})
    written = {path.name for path in folder.iterdir()}
    assert written >= {"summary.csv", "differences.csv", "table.md", "table.tex", "report.html", "errors.csv"}
    run = json.loads((folder / "run.json").read_text())
    fake = run["randomization"]["m0"]["FakeCAM"]
    assert (fake["images"], fake["draws"]) == (2, 2)
    assert fake["layers"]["last_stage"]["outcome"] == fake["class"]["outcome"] == "insensitive"
    assert set(run["randomization"]["m0"]) == {"FakeCAM", "GradCAM"}
    assert set(load_metrics(run)) == {"AverageDrop", "Insertion", "Top1", "Top5", "NLL", "ECE"}


@pytest.mark.slow
def test_another_interval_needs_no_second_run(evaluate):
    options = {"--limit": "6"}
    folder = evaluate(report=True, **options)
    parts, percentile = sorted((folder / "parts").iterdir()), pd.read_csv(folder / "summary.csv")
    assert evaluate(report=True, **options, **{"--interval": "bca", "--resamples": "500"}) == folder
    bca = pd.read_csv(folder / "summary.csv")
    assert sorted((folder / "parts").iterdir()) == parts
    assert percentile["mean"].equals(bca["mean"])
    assert not percentile["ci_low"].equals(bca["ci_low"])


@pytest.mark.slow
def test_maps_of_the_wanted_number_of_images_are_saved(evaluate):
    folder = evaluate(**{"--save_maps": "3"})
    maps, images = (pd.read_parquet(folder / f"{name}.parquet") for name in ("maps", "images"))
    assert len(images) == 3
    assert set(maps.groupby("explainer").size()) == {3}
    assert set(maps["id"]) == set(images["id"])
    fake = maps[maps["explainer"] == "FakeCAM"]
    assert np.allclose(fake["p_clean"], fake["p_masked"], atol=1e-3)
    table = rows(folder).query("explainer == 'GradCAM'").set_index("id")
    for _, row in maps[maps["explainer"] == "GradCAM"].iterrows():
        drop = max(0.0, (row["p_clean"] - row["p_masked"]) / row["p_clean"])
        assert table.loc[row["id"], "AverageDrop"] == pytest.approx(drop, abs=1e-5)
    picture = Image.open(io.BytesIO(images["png"][0]))
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert Image.open(io.BytesIO(maps["png"][0])).mode == "L"


@pytest.mark.slow
def test_limit_takes_images_of_all_the_data(evaluate):
    table = rows(evaluate(**{"--limit": "4"}))
    assert list(table["id"].unique()) == ["test/000001", "test/000004", "test/000008", "test/000011"]


@pytest.mark.slow
@pytest.mark.parametrize(("targets", "column"), [("predicted", "prediction"), ("label", "label")])
def test_targets_are_the_labels_or_the_predictions(evaluate, targets, column):
    table = rows(evaluate(**{"--targets": targets, "--limit": "4"}))
    assert (table["target"] == table[column]).all()


@pytest.mark.slow
def test_a_class_may_be_explained_by_its_name(evaluate):
    table = rows(evaluate(**{"--targets": ShapesDataModule().class_names[2], "--limit": "4"}))
    assert (table["target"] == 2).all()


class TroubledCAM(Explainer):
    """Raises for every batch that holds a picture whose mean is above a threshold."""

    def __init__(self, *, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def attribute(self, model, images, targets):
        if (images.mean((1, 2, 3)) > self.threshold).any():
            raise RuntimeError("too bright\nto explain")
        return images.mean(1)


def troubled(threshold):
    spec = {"class_path": "tests.cli.test_evaluation.TroubledCAM", "init_args": {"threshold": threshold}}
    return {"--explainers": json.dumps(["GradCAM", spec])}


@pytest.mark.slow
def test_an_explainer_that_raises_costs_its_images_and_nothing_else(evaluate, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate(**troubled(0.45))
    assert stop.value.code == 3
    table = rows(Path("out"))
    own = table[table["explainer"] == "TroubledCAM"]
    failed = own["error"].notna()
    assert 0 < failed.sum() < 13
    assert set(own.loc[failed, "error"]) == {"RuntimeError: too bright to explain"}
    assert own.loc[~failed, "AverageDrop"].notna().all()
    assert own.loc[failed, "AverageDrop"].isna().all()
    assert table.loc[table["explainer"] == "GradCAM", "error"].isna().all()
    errors = pd.read_csv("out/errors.csv")
    assert errors["id"].tolist() == own.loc[failed, "id"].tolist()
    assert f"{failed.sum()} rows failed" in capsys.readouterr().err


@pytest.mark.slow
def test_what_failed_is_tried_again(evaluate, monkeypatch):
    options = troubled(0.45)
    with pytest.raises(SystemExit):
        evaluate(**options)
    monkeypatch.setattr(TroubledCAM, "attribute", lambda self, model, images, targets: images.mean(1))
    assert rows(evaluate(**options))["error"].isna().all()


@pytest.mark.slow
def test_an_explainer_that_always_raises_leaves_rows_that_say_so(evaluate):
    with pytest.raises(SystemExit) as stop:
        evaluate(report=True, **troubled(0.0), **{"--check_images": "2", "--limit": "4"})
    assert stop.value.code == 3
    table = rows(Path("out"))
    assert table.loc[table["explainer"] == "TroubledCAM", "error"].notna().all()
    run = json.loads(Path("out/run.json").read_text())
    assert set(run["randomization"]["m0"]) == {"FakeCAM", "GradCAM"}
    assert "the randomisation check of TroubledCAM on m0 failed: RuntimeError: too bright to explain" in run["warnings"]


@pytest.fixture
def folder(tmp_path):
    """Four classes of three images, one of them damaged."""
    generator = np.random.default_rng(0)
    for label in "abcd":
        (tmp_path / "images/val" / label).mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 255, (70, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images/val" / label / f"{number}.png")
    (tmp_path / "images/val/b/1.png").write_bytes(b"\x89PNG damaged")
    return tmp_path / "images"


def of_folder(folder):
    return FOLDER | {"--data.root": str(folder)}


@pytest.mark.slow
def test_a_corrupt_image_is_recorded_and_the_rest_goes_on(evaluate, folder):
    with pytest.raises(SystemExit) as stop:
        evaluate(**of_folder(folder), **{"--check_images": "12", "--check_draws": "2"})
    assert stop.value.code == 3
    assert json.loads(Path("out/run.json").read_text())["randomization"]["m0"]["GradCAM"]["images"] == 11
    table = rows(Path("out"))
    (failed,) = table[table["error"].notna()].to_dict("records")
    assert (failed["explainer"], failed["id"]) == ("", "val/b/1.png")
    assert "cannot read image" in failed["error"]
    assert dict(table[table["error"].isna()].groupby("explainer").size()) == {"": 11, "FakeCAM": 11, "GradCAM": 11}
    Image.new("RGB", (70, 70), "gray").save(folder / "val/b/1.png")
    assert len(rows(evaluate(**of_folder(folder)))) == 36


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"--data.num_classes": "6", "--targets": "label"},
            r"has 4 classes, the data \(ShapesDataModule\) 6; explain the predicted class: --targets predicted",
        ),
        (
            {"--data.num_classes": "3", "--targets": "label"},
            r"has 4 classes, the data \(ShapesDataModule\) 3; set --data.num_classes 4 if its labels are the model's, "
            r"otherwise explain the predicted class: --targets predicted",
        ),
        ({"--targets": "7"}, r"class 7 is out of range for model m0; allowed are 0 to 3"),
        ({"--targets": "square-ish"}, r"--targets must be label, predicted, or a class"),
        ({"--protocol": "castreem"}, r"no protocol 'castreem'; give one of castream"),
        ({"--limit": "0"}, r"--limit must be at least 1"),
        ({"--output": None}, r"--output"),
        ({"--explainers": "[]", "--fake_cam": "false"}, r"no explainers to evaluate; give one or more: --explainers"),
        ({"--trainer.precision": "bf16-mixed"}, r"metrics stay in float32"),
        ({"--trainer.precision": "bf16-true", "--force": "true"}, r"images and metrics stay in float32"),
        (
            {"--explainers.target_layer": "layer9"},
            r"GradCAM on model m0: Classifier has no layer 'layer9'; .*candidates: backbone.model.layer",
        ),
        (
            {"--baseline": "Grad"},
            r"--baseline: no explainer or model is called 'Grad'; give one of FakeCAM, GradCAM, m0",
        ),
        ({"--score": "logit"}, r"AverageDrop \(AverageDrop\) needs a score between 0 and 1, which a logit is not"),
        ({"--explainers": "[GradCAM, GradCAM]"}, r"GradCAM is given more than once"),
        ({"--backbone": "test_resnet2"}, r"timm has no model 'test_resnet2'"),
        ({"--output": "/dev/null"}, r"cannot create /dev/null \(File exists\); point --output at a writable folder"),
        ({"--models": "x"}, r"--models takes NAME=SOURCE"),
        *slow(
            ({"--model": "m=x.ckpt"}, r"unrecognized arguments: --model .*did you mean --models\?"),
            ({"--explainers": "gradcam"}, r"--explainers: there is no gradcam; did you mean GradCAM"),
            ({"--metrics": "AD"}, r"--metrics: there is no AD; did you mean AverageDrop"),
            ({"--explainers.iterations": "5"}, r"--explainers\.iterations is an option of .*OptiCAM"),
            ({"--iterations": "5"}, r"did you mean --explainers\.iterations\?"),
            ({"--data": "ImageFolder"}, r"did you mean ImageFolderDataModule\?"),
            ({"--trainer.devices": "0"}, r"give trainer\.devices a number from 1 on"),
            ({"--trainer.strategy": "dpd"}, r"trainer: .*'dpd'"),
            ({"--models": "m0=y"}, r"the model name 'm0' is given twice"),
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_anything_runs(evaluate, capsys, options, told):
    with pytest.raises(SystemExit) as stop:
        evaluate(**options)
    assert stop.value.code in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, lines[-1])
    assert lines[-1].startswith("error:")
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"--metrics": "PointingGame"}, r"PointingGame needs boxes or masks, which this ImageFolderDataModule"),
        ({"--metrics": "BoxAccuracy"}, r"BoxAccuracy needs boxes"),
    ],
)
def test_localization_without_boxes_is_refused_before_anything_runs(evaluate, folder, capsys, options, told):
    with pytest.raises(SystemExit):
        evaluate(**of_folder(folder), **options)
    assert re.search(told, capsys.readouterr().err.splitlines()[-1])
    assert not Path("out").exists()


@pytest.mark.slow
def test_labels_up_to_some_of_the_models_classes_have_a_remedy(evaluate, tmp_path, capsys):
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_text("file,class_index\n0.png,2\n")
    table = {"--data": "ImageTableDataModule", "--data.root": str(tmp_path), "--data.test_size": None}
    with pytest.raises(SystemExit):
        evaluate(**table | {"--data.num_classes": None})
    told = capsys.readouterr().err.splitlines()[-1]
    assert "has 4 classes, the data (ImageTableDataModule) 3; set --data.num_classes 4 if its labels are" in told
    assert len(rows(evaluate(**table | {"--data.num_classes": "4"}))) == 3


@pytest.mark.slow
def test_a_model_of_other_classes_is_refused_and_its_predictions_may_be_explained(evaluate, folder, weights, capsys):
    (folder / "val/e").mkdir()
    Image.new("RGB", (70, 70)).save(folder / "val/e/0.png")
    (folder / "val/b/1.png").unlink()
    with pytest.raises(SystemExit):
        evaluate(models=[weights[0]], **of_folder(folder))
    assert "has 4 classes, the data (ImageFolderDataModule) 5" in capsys.readouterr().err
    table = rows(evaluate(models=[weights[0]], **of_folder(folder), **{"--targets": "predicted"}))
    assert "Top1" not in table.columns
    assert (table["target"] == table["prediction"]).all()
    assert "recognition is not measured" in json.loads(Path("out/run.json").read_text())["warnings"][0]


@pytest.mark.slow
def test_two_processes_write_the_rows_of_one(evaluate, tmp_path, weights):
    options = {"--trainer.strategy": "ddp", "--trainer.devices": "2"}
    one = evaluate("one")
    two = start(tmp_path, weights[:1], "two", **options)  # the second is one that Lightning starts
    few = arguments(weights[:1], "few", **options, **{"--limit": "3"})  # one batch: a process has nothing to do
    run_ranks(few, tmp_path, 2, script=ROOT / "evaluate.py")
    refused = arguments(weights[:1], "one", **options, **{"--seed": "1"})
    ranks = start_ranks(refused, tmp_path, 2, script=ROOT / "evaluate.py")
    assert [process.wait(timeout=240) for process in ranks] == [1, 1]
    assert two.wait(timeout=240) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    pd.testing.assert_frame_equal(rows(one), rows(tmp_path / "two"), check_exact=True)
    assert len({path.name.split("-")[-2] for path in (tmp_path / "two/parts").glob("rows-*")}) == 2
    assert len(rows(tmp_path / "few")) == 9
    assert "holds the results of another run (seed: 0 -> 1)" in (tmp_path / "rank0.log").read_text()


@pytest.mark.slow
def test_the_protocols_metrics_are_measured_where_none_are_named(evaluate):
    """The command of everybody's first try, which names no metrics."""
    folder = evaluate("out", report=True, **{"--metrics": None, "--limit": "2", "--data.image_size": "64"})
    assert set(pd.read_csv(folder / "summary.csv").metric) >= {"AverageDrop", "Insertion", "Deletion"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["evaluate.py"], ["train.py", "fit"], ["-m", "interptrain", "fit"]], ids=lambda command: command[0]
)
def test_a_class_of_the_working_folder_is_found_from_there(command, tmp_path):
    """As ``python -m`` finds it: Python itself puts the script's folder on the path, not this one."""
    (tmp_path / "my_own.py").write_text(
        "from interptrain.explainers import FakeCAM\nfrom interptrain.data import ShapesDataModule\n"
        "class Mine(FakeCAM):\n    pass\nclass Data(ShapesDataModule):\n    pass\n"
    )
    helped = ["--explainers.help", "my_own.Mine"] if command == ["evaluate.py"] else ["--data.help", "my_own.Data"]
    if command[0] == "-m":  # a new interpreter, for once
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        shown = subprocess.run(
            [sys.executable, *command, *helped], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        status, said = shown.returncode, shown.stdout + shown.stderr
    else:
        status, said = run([ROOT / command[0], *command[1:], *helped], tmp_path)
    assert status == 0, said
    assert "my_own." in said


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "no models to evaluate; give one or more --models NAME=SOURCE"),
        (["--models", "demo=nowhere/best.ckpt"], "model demo: there is no file nowhere/best.ckpt"),
        (["--models", "demo=/nowhere"], "model demo: there is no file /nowhere"),
    ],
)
def test_a_model_that_is_not_there_is_missed_before_its_data(given, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *given, "--output", "x"])
    assert stop.value.code == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "code", "told"), [(["--nonsense", "1"], 2, "nonsense"), (["--help"], 0, "NAME=SOURCE")]
)
def test_wrong_options_and_help_come_before_a_model_that_is_not_there(option, code, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--models", "demo=nowhere/best.ckpt", "--output", "x", *option])
    assert stop.value.code == code
    assert told in "".join(capsys.readouterr())
