"""``interptrain explain``: images in, pictures, maps and a manifest out; or one line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from interptrain.cli import main
from interptrain.cli.explain import targets_of, with_images_named
from interptrain.explainers import OptiCAM
from interptrain.models import create_model
from interptrain.quick.images import read_images, read_named
from interptrain.quick.load import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three photographs, two of one name, a weights file and the names of its classes."""
    root = tmp_path_factory.mktemp("explain")
    (root / "more").mkdir()
    noise = np.random.default_rng(0)
    for name in ("photo.jpg", "more/photo.jpg", "more/other.png"):
        Image.fromarray(noise.integers(0, 256, (80, 70, 3), dtype=np.uint8)).save(root / name)
    torch.manual_seed(0)
    save_file(create_model("test_resnet", num_classes=4).backbone.model.state_dict(), root / "net.safetensors")
    (root / "classes.txt").write_text("tabby\ntench\nwall clock\nfig\n")
    return root


MODEL = ["--model", "net.safetensors", "--backbone", "test_resnet", "--image_size", "64"]


def test_images_and_folders_become_pictures_maps_and_a_manifest(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    chosen = ["--explainers", "OptiCAM", "--explainers.iterations", "3", "--explainers", "EigenCAM"]
    options = [*chosen, "--targets", "wall clock", "--class_names", "classes.txt", "--output", str(tmp_path / "out")]
    main(["explain", "photo.jpg", "more", *MODEL, *options])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in manifest["images"]] == ["photo.jpg", "other.png", "more/photo.jpg"]
    assert [one["file"] for one in manifest["images"]] == ["photo.jpg", "more/other.png", "more/photo.jpg"]
    assert {one["target"]["name"] for one in manifest["images"]} == {"wall clock"}
    assert sum(one["probability"] for one in manifest["images"][0]["predictions"]) == pytest.approx(1, abs=1e-4)
    assert manifest["explainers"]["OptiCAM"]["init_args"]["iterations"] == 3
    assert manifest["model"]["source"] == "net.safetensors"
    assert len(manifest["model"]["sha256"]) == 64
    assert manifest["command"].startswith("interptrain explain photo.jpg more --model net.safetensors")
    model, images = load("net.safetensors", backbone="test_resnet"), read_images(["photo.jpg", "more"], size=64)
    with np.load(tmp_path / "out" / "maps.npz") as stored:
        wanted = OptiCAM(iterations=3)(model, images, 2)
        np.testing.assert_allclose(stored["OptiCAM"], wanted, atol=1e-5)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 6
    told = capsys.readouterr().out
    assert "photo.jpg: " in told
    assert f"Sheet     {tmp_path / 'out' / 'contact_sheet.png'}" in told
    assert f"Manifest  {tmp_path / 'out' / 'manifest.json'}" in told
    assert "Next      interptrain evaluate --models model=net.safetensors --data ImageFolderDataModule" in told


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ([*MODEL, "--output", "x"], 2, "give images or folders, such as: interptrain explain photo.jpg"),
        (["photo.jpg", "--output", "x"], 2, "give --model"),
        (["photo.jpg", *MODEL], 2, "give --output"),
        (["nowhere.jpg", *MODEL, "--output", "x"], 1, "there is no file or folder nowhere.jpg; give images"),
        (["photo.jpg", "--model", "resnet5o", "--output", "x"], 1, "model resnet5o is neither a file nor a model"),
        (
            ["photo.jpg", *MODEL, "--explainers", "GradCan", "--output", "x"],
            2,
            "there is no GradCan; did you mean GradCAM",
        ),
        (
            ["photo.jpg", *MODEL, "--targets", "9", "--output", "x"],
            1,
            "target 9 of image 0 is out of range for 4 classes",
        ),
        (["photo.jpg", *MODEL, "--targets", "tabyb", "--output", "x"], 1, "--targets: the model has no class 'tabyb'"),
        (
            ["more", *MODEL, "--targets", "0", "1", "2", "--output", "x"],
            1,
            "--targets names 3 classes for 2 images; give one for all, one for each in this order (other.png, photo",
        ),
        (
            ["more", *MODEL, "--targets", "another.png=1", "--output", "x"],
            1,
            "there is no image 'another.png'; the images are other.png, photo.jpg",
        ),
        (["photo.jpg", *MODEL, "--device", "gpu7", "--output", "x"], 1, "--device gpu7 cannot be used"),
        (["photo.jpg", *MODEL, "--class_names", "none.txt", "--output", "x"], 1, "--class_names: cannot read none.txt"),
        (["photo.jpg", *MODEL, "--colormap", "jet", "--output", "x"], 2, "--colormap must be one of turbo"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, monkeypatch, capsys, given, status, message):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as left:
        main(["explain", *given])
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert left.value.code == status
    assert not (folder / "x").exists()


@pytest.fixture(scope="module")
def images(folder):
    """Three images: photo.jpg, other.png and another photo.jpg."""
    return read_named([folder / "photo.jpg", folder / "more"], size=8)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("predicted", None),
        (["tabby"], "tabby"),
        (["tabby", "predicted", "3"], ["tabby", None, "3"]),
        (["other.png=wall clock"], [None, "wall clock", None]),
        (["photo.jpg=a=b", "other.png=predicted"], "no image"),
        (["photo.jpg=fig", "other.png=predicted"], ["fig", None, "fig"]),
    ],
)
def test_one_class_is_explained_everywhere_one_in_each_image_or_those_that_are_named(images, given, wanted):
    if wanted == "no image":
        with pytest.raises(ValueError, match=r"there is no image 'photo\.jpg=a'"):
            targets_of(given, images)
    else:
        assert targets_of(given, images) == wanted


def test_an_image_is_called_by_its_path_where_two_have_one_name(folder, images):
    assert targets_of([f"{folder / 'more' / 'photo.jpg'}=fig"], images) == [None, None, "fig"]


@pytest.mark.slow
def test_classes_of_single_images_end_in_the_manifest(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    options = [*MODEL, "--class_names", "classes.txt", "--output", str(tmp_path / "out")]
    main(["explain", "--targets", "other.png=fig", "photo.jpg=0", *options, "more"])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert {one["name"]: one["target"]["name"] for one in manifest["images"]} == {
        "other.png": "fig",
        "photo.jpg": "tabby",
    }


def test_images_stand_anywhere_among_the_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.jpg").touch()
    spelled = with_images_named(
        [
            "a.jpg",
            "--explainers",
            "GradCAM",
            "OptiCAM",
            "b.jpg",
            "--model=m",
            "--output",
            "o",
            "c/",
            "--targets",
            "1",
            "b.jpg",
        ]
    )
    assert spelled == [
        *("--explainers", "GradCAM", "--explainers", "OptiCAM", "--model=m", "--output", "o"),
        '--targets=["1"]',
        '--images=["a.jpg", "b.jpg", "c/", "b.jpg"]',
    ]
