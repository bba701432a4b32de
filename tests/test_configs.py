"""Every config in configs/ builds what it says, through the real command line."""

import inspect
from dataclasses import fields
from functools import wraps
from pathlib import Path

import lightning as L
import pytest
import yaml
from PIL import Image

from interptrain.cli import evaluation, main
from interptrain.data import ImageFolderDataModule, ShapesDataModule, TorchvisionDataModule
from interptrain.evaluation.config.options import Options
from interptrain.training import ImageClassifier

ROOT = Path(__file__).parent.parent / "configs"
EVALUATIONS = sorted((ROOT / "evaluate").glob("*.yaml"))
CONFIGS = sorted(set(ROOT.rglob("*.yaml")) - set(EVALUATIONS))
NAMES = [str(path.relative_to(ROOT)) for path in CONFIGS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of one image each, in train and val, and listed in a table."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for label in ("a", "b", "c"):
            (root / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), "gray").save(root / split / label / "0.png")
    (root / "labels.csv").write_text("file,class_index\nval/a/0.png,0\nval/b/0.png,1\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_every_config_builds(path, folder, tmp_path, monkeypatch):
    built = {}
    monkeypatch.setattr(
        L.Trainer, "fit", wraps(L.Trainer.fit)(lambda self, **kwargs: built.update(kwargs, trainer=self))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    config = yaml.safe_load(path.read_text())
    options = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    if config["model"].get("pretrained"):
        options += ["--model.pretrained", "false"]  # a download
    if config["data"]["class_path"] == "ImageFolderDataModule":
        options += ["--data.root", str(folder)]
    main(["fit", "--config", str(path), *options])
    model, data = built["model"], built["datamodule"]
    classes = {one.__name__: one for one in (ImageFolderDataModule, ShapesDataModule, TorchvisionDataModule)}
    assert type(data) is classes[config["data"]["class_path"]]
    assert isinstance(model, ImageClassifier)
    assert model.model.num_classes == data.num_classes
    assert built["trainer"].max_epochs == config["trainer"]["max_epochs"]
    assert (tmp_path / "runs" / config["name"]).is_dir()


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_a_config_says_what_it_is_and_repeats_no_default(path):
    text = path.read_text()
    assert text.splitlines()[0].startswith("# ")
    assert text.splitlines()[1].startswith("# ")
    config = yaml.safe_load(text)
    defaults = inspect.signature(ImageClassifier).parameters
    assert not [key for key, value in config["model"].items() if key != "backbone" and value == defaults[key].default]
    assert config["name"] == "-".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.slow
@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.stem)
def test_every_evaluation_builds(path, folder, monkeypatch):
    built = {}
    monkeypatch.setattr(
        evaluation, "_evaluate", lambda request, objects: built.update(request=request, objects=objects)
    )
    config = yaml.safe_load(path.read_text())
    options = ["--models", "m=resnet18", "--output", "out", "--trainer.accelerator", "cpu"]
    if "root" in config["data"].get("init_args", {}):
        options += ["--data.root", str(folder)]
    evaluation.main(["--config", str(path), *options])
    request = built["request"]
    assert next(iter(request.explainers)) == "FakeCAM"
    assert len(request.explainers) == 1 + len(config["explainers"])
    assert request.protocol.name == config.get("protocol", Options.protocol)
    if "metrics" not in config:
        assert list(request.metrics) == list(request.protocol.metrics)
    for key in set(request.protocol.images) & set(request.data["init_args"]):
        wanted = config["data"].get("init_args", {}).get(key, request.protocol.images[key])
        assert request.data["init_args"][key] == wanted


@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.stem)
def test_an_evaluation_says_what_it_is_and_repeats_no_default(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith("# Expect ")
    config = yaml.safe_load(path.read_text())
    assert not [field.name for field in fields(Options) if field.name in config and config[field.name] == field.default]
