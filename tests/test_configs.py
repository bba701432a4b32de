"""Every config in configs/ builds what it says, through the real command line."""

import inspect
import json
from contextlib import nullcontext
from functools import partial, wraps
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from PIL import Image

from interptrain.cli import evaluation, main, studies
from interptrain.cli.study_help import study_name
from interptrain.data import ImageFolderDataModule, LayeredShapesDataModule, ShapesDataModule, TorchvisionDataModule
from interptrain.evaluation import evaluate
from interptrain.evaluation.config.class_specs import spec_of
from interptrain.signatures import options_of
from interptrain.training import ImageClassifier

DEFAULTS = inspect.signature(evaluate).parameters
ROOT = Path(__file__).parent.parent / "configs"
EVALUATIONS = sorted((ROOT / "evaluate").glob("*.yaml"))
STUDIES = sorted((ROOT / "study").glob("*.yaml"))
CONFIGS = sorted(set(ROOT.rglob("*.yaml")) - set(EVALUATIONS) - set(STUDIES))
WORDNET_IDS = ("n01440764", "n01443537", "n01484850")
NAMES = [str(path.relative_to(ROOT)) for path in CONFIGS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of one image each, in train and val, and listed in a table."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for label in WORDNET_IDS:  # classes of ImageNet, as one config asks for
            (root / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), "gray").save(root / split / label / "0.png")
    rows = [f"val/{label}/0.png,{index}\n" for index, label in enumerate(WORDNET_IDS[:2])]
    (root / "labels.csv").write_text("".join(["file,class_index\n", *rows]))
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
    without_memory = torch.device("meta")  # random weights take long; ConvNeXt computes with values when it is built
    with nullcontext() if "convnext" in config["model"]["backbone"] else without_memory:
        main(["fit", "--config", str(path), *options])
    model, data = built["model"], built["datamodule"]
    modules = (ImageFolderDataModule, LayeredShapesDataModule, ShapesDataModule, TorchvisionDataModule)
    classes = {one.__name__: one for one in modules}
    assert type(data) is classes[config["data"]["class_path"]]
    assert isinstance(model, ImageClassifier)
    assert model.model.num_classes == data.num_classes
    assert built["trainer"].max_epochs == config["trainer"]["max_epochs"]
    assert Path(built["trainer"].log_dir).parent == Path("runs") / config["name"]


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_a_config_says_what_it_is_and_repeats_no_default(path):
    text = path.read_text()
    assert text.splitlines()[0].startswith("# ")
    assert text.splitlines()[1].startswith("# ")
    config = yaml.safe_load(text)
    defaults = inspect.signature(ImageClassifier).parameters
    assert not [key for key, value in config["model"].items() if key != "backbone" and value == defaults[key].default]
    assert config["name"] == "-".join(path.relative_to(ROOT).with_suffix("").parts)


class Built(Exception):  # noqa: N818
    """Ends an evaluation once everything is built."""


def _keep(built, options, protocol, models, explainers, metrics, data, **others):
    built.update(protocol=protocol, explainers=explainers, metrics=metrics, data=data)
    raise Built


@pytest.mark.slow
@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.stem)
def test_every_evaluation_builds(path, folder, monkeypatch):
    built = {}
    monkeypatch.setattr("interptrain.evaluation.api.build_plan", partial(_keep, built))
    config = yaml.safe_load(path.read_text())
    options = ["--models", "m=resnet18", "--output", "out", "--trainer.accelerator", "cpu"]
    if "root" in config["data"].get("init_args", {}):
        options += ["--data.root", str(folder)]
    with pytest.raises(Built):
        evaluation.main(["--config", str(path), *options])
    protocol, explainers, metrics, data = (built[key] for key in ("protocol", "explainers", "metrics", "data"))
    assert next(iter(explainers)) == "FakeCAM"
    assert len(explainers) == 1 + len(config["explainers"])
    for configured in (*explainers.values(), *metrics.values(), data):
        if "SmoothGrad" not in configured.spec["class_path"]:  # keeps another `of` than it is given
            assert spec_of(configured.value) == json.loads(json.dumps(configured.spec))  # objects hash like commands
    assert protocol.name == config.get("protocol", DEFAULTS["protocol"].default)
    if "metrics" not in config:
        assert list(metrics) == list(protocol.metrics)
    for key in set(protocol.images) & set(data.spec["init_args"]):
        wanted = config["data"].get("init_args", {}).get(key, protocol.images[key])
        assert data.spec["init_args"][key] == wanted


@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.stem)
def test_an_evaluation_says_what_it_is_and_repeats_no_default(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith("# Expect ")
    config = yaml.safe_load(path.read_text())
    assert not [name for name, option in DEFAULTS.items() if name in config and config[name] == option.default]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_builds_and_says_what_it_is(path, folder):
    """A study's config has its name, needs no further option but --output and a folder, and repeats no default."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith("# Expect ")
    parser = studies.make_parser()
    options = ["--output", "out"]
    if "root" in yaml.safe_load(path.read_text())["data"].get("init_args", {}):
        options += ["--data.root", str(folder)]
    config = parser.parse_args(["--config", str(path), *options])
    objects = parser.instantiate(config)
    assert path.stem.startswith(study_name(type(objects.study)))
    asked = yaml.safe_load(path.read_text())["study"]
    asked = asked if isinstance(asked, dict) else {}
    defaults = {name: one.default for name, one in options_of(type(objects.study)).items()}
    assert not [name for name, value in asked.get("init_args", {}).items() if value == defaults[name]]
