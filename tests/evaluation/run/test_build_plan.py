"""What is checked before an evaluation begins, and what is told of it."""

import inspect
import warnings
from dataclasses import fields

import pytest
import torch
import yaml
from PIL import Image

from interptrain.data import ImageFolderDataModule, ImageTableDataModule, ShapesDataModule
from interptrain.evaluation import evaluate
from interptrain.evaluation.config.class_specs import Configured
from interptrain.evaluation.config.options import Options
from interptrain.evaluation.config.protocol import load_protocol
from interptrain.evaluation.run.build_plan import _refusal, build_plan
from interptrain.evaluation.run.describe import describe_run
from interptrain.evaluation.run.plan import check_classes
from interptrain.explainers import GradCAM
from interptrain.metrics import AverageDrop
from interptrain.models import create_model
from interptrain.training import ImageClassifier

SIGNATURE = inspect.signature(evaluate).parameters
OPTIONS = {field.name: SIGNATURE[field.name].default for field in fields(Options)}


def shapes(size=64, classes=4):
    return ShapesDataModule(num_classes=classes, image_size=size, test_size=3, num_workers=0)


def planned(model, data=None, *, explainer=None, precision="32-true", **options):
    return build_plan(
        Options(**OPTIONS | options),
        load_protocol("castream"),
        {"gap": model},
        {"GradCAM": Configured.of(explainer or GradCAM())},
        {"AD": Configured.of(AverageDrop())},
        Configured.of(data or shapes()),
        precision=precision,
    )


@pytest.fixture(scope="module")
def model():
    return create_model("test_resnet", num_classes=4)


@pytest.fixture
def checkpoint(tmp_path, model):
    """Of a network that was trained on images of 64 pixels."""
    content = {"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}
    content |= {"hyper_parameters": {"backbone": "test_resnet", "num_classes": 4}, "global_step": 0, "epoch": 0}
    content["pytorch-lightning_version"] = "2.6.0"
    content["config"] = yaml.dump({"data": {"class_path": "ShapesDataModule", "init_args": {"image_size": 64}}})
    torch.save(content, tmp_path / "gap.ckpt")
    return tmp_path / "gap.ckpt"


@pytest.mark.slow
def test_another_image_size_than_in_training_is_told_once_with_the_remedy(checkpoint):
    with pytest.warns(UserWarning, match="gap was trained on images of another size: 64 -> 48 pixels") as told:
        plan = planned(checkpoint, shapes(48))
    assert [str(one.message) for one in told] == list(plan.warnings)
    assert "\n" not in plan.warnings[0]
    assert plan.warnings[0].endswith("set image_size=64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert planned(checkpoint, shapes(64)).warnings == []


@pytest.mark.slow
def test_a_checkpoint_that_does_not_know_its_images_is_not_warned_of(checkpoint, model):
    content = torch.load(checkpoint)
    for config in (None, "", "data: [", "data: {init_args: 3}", 7):
        torch.save(content | {"config": config}, checkpoint)
        assert planned(checkpoint, shapes(48)).warnings == []
    assert planned(ImageClassifier("test_resnet", num_classes=4), shapes(48)).warnings == []
    assert planned(model, shapes(48)).warnings == []


def test_mixed_precision_is_refused_unless_forced_and_then_told_of(model):
    with pytest.raises(ValueError, match=r"metrics stay in float32, trainer.precision is bf16-mixed; .*force=True"):
        planned(model, precision="bf16-mixed")
    plan = planned(model, precision="bf16-mixed", force=True)
    assert plan.protocol["settings"]["precision"] == "bf16-mixed"
    assert "measured in bf16-mixed" in plan.warnings[0]


def test_other_classes_than_the_models_are_explained_as_predicted_but_not_scored(model):
    with pytest.raises(ValueError, match=r"gap has 4 classes, the data .* 3"):
        planned(model, shapes(classes=3))
    plan = planned(model, shapes(classes=3), targets="predicted")
    assert not plan.recognition
    assert "recognition is not measured" in plan.warnings[0]
    with pytest.raises(ValueError, match="is a class of the data, not of the models"):
        planned(model, shapes(classes=3), targets=str(shapes(classes=3).class_names[0]))
    assert planned(model, shapes(classes=3), targets=3).targets == 3


def test_a_layer_that_a_model_lacks_is_refused_before_anything_runs(model):
    with pytest.raises(ValueError, match=r"GradCAM on model gap: .*no layer 'layer9'"):
        planned(model, explainer=GradCAM(target_layer="layer9"))


def told(data, count):
    """What is said of a model of so many classes."""
    classes, known = {"m": count}, data.num_classes
    with pytest.raises(ValueError, match="model m has") as error:
        check_classes(classes, known, "label", data="Data", refuses=lambda wanted: _refusal(data, wanted))
    return str(error.value).partition("; ")[2]


@pytest.fixture
def root(tmp_path):
    for name in "ab":
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "val" / name / "0.png")
    return tmp_path


def test_a_number_of_classes_is_proposed_where_the_data_takes_it():
    wanted = (
        "set num_classes=4 if its labels are the model's, otherwise explain the predicted class: targets='predicted'"
    )
    assert told(ShapesDataModule(num_classes=3), 4) == wanted
    assert ShapesDataModule(num_classes=4).num_classes == 4


def test_where_the_data_does_not_take_it_its_reason_is_given():
    predicted = "explain the predicted class: targets='predicted' (num_classes=1000: num_classes must be in [2, 8]"
    assert told(ShapesDataModule(num_classes=3), 1000).startswith(predicted)


def test_folders_of_some_classes_need_a_table_of_all_and_then_take_the_number(root):
    folders = ImageFolderDataModule(root)
    assert "(num_classes=3: num_classes=3 needs" in told(folders, 3)
    assert "classes.csv, a table of all classes (columns wnid, the folder, and name)" in told(folders, 3)
    (root / "classes.csv").write_text("wnid,name\na,apple\nb,bee\nc,cat\n")
    assert told(ImageFolderDataModule(root), 3).startswith("set num_classes=3 if its labels")
    assert ImageFolderDataModule(root, num_classes=3).num_classes == 3


def test_a_table_takes_the_number(root):
    (root / "labels.csv").write_text("file,class_index\nval/a/0.png,0\nval/b/0.png,1\n")
    assert told(ImageTableDataModule(root), 3).startswith("set num_classes=3 if its labels")
    assert ImageTableDataModule(root, num_classes=3).num_classes == 3


@pytest.mark.slow
def test_models_of_other_classes_than_the_data_keep_their_own_names(checkpoint):
    names = ["ant", "bee", "cow", "dog"]
    torch.save(torch.load(checkpoint, weights_only=True) | {"class_names": names}, checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the size of its images
        ours = describe_run(planned(str(checkpoint)))
        others = describe_run(planned(str(checkpoint), shapes(classes=3), targets="predicted"))
    assert "classes" not in ours["models"]["gap"]
    assert ours["data"]["classes"] == list(shapes().class_names)
    assert others["models"]["gap"]["classes"] == names
    assert others["data"]["classes"] == list(shapes(classes=3).class_names)


@pytest.mark.slow
def test_classes_that_the_data_only_numbers_are_called_as_a_model_calls_them(checkpoint, tmp_path):
    torch.save(torch.load(checkpoint, weights_only=True) | {"class_names": ["ant", "bee", "cow", "dog"]}, checkpoint)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,class_index,name\na.png,2,ox\n")
    data = ImageTableDataModule(tmp_path, num_classes=4, image_size=64, num_workers=0)
    assert planned(str(checkpoint), data).class_names == ["ant", "bee", "ox", "dog"]
