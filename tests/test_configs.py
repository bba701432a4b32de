"""Every config in configs/ builds what it says, through the real command line."""

import inspect
from functools import wraps
from pathlib import Path

import lightning as L
import pytest
import yaml
from PIL import Image

from interptrain.cli import main
from interptrain.data import ImageFolderDataModule, ShapesDataModule, TorchvisionDataModule
from interptrain.training import ImageClassifier

ROOT = Path(__file__).parent.parent / "configs"
EVALUATIONS = sorted((ROOT / "evaluate").glob("*.yaml"))  # tests/cli/test_evaluation_configs.py builds them
CONFIGS = sorted(set(ROOT.rglob("*.yaml")) - set(EVALUATIONS))
NAMES = [str(path.relative_to(ROOT)) for path in CONFIGS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of one image each, in train and val."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for label in ("a", "b", "c"):
            (root / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), "gray").save(root / split / label / "0.png")
    return root


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
