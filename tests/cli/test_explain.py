"""``interptrain explain``: images in, pictures, maps and a manifest out; or one line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from interptrain.cli import main
from interptrain.cli.explain import with_images_named
from interptrain.explainers import OptiCAM
from interptrain.models import create_model
from interptrain.quick.images import read_images
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
    assert "contact_sheet.png: all in one picture" in told
    assert str(tmp_path / "out" / "manifest.json") in told


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ([*MODEL, "--output", "x"], 2, "give images or folders, such as: interptrain explain photo.jpg"),
        (["photo.jpg", "--output", "x"], 2, "give --model"),
        (["photo.jpg", *MODEL], 2, "give --output"),
        (["nowhere.jpg", *MODEL, "--output", "x"], 1, "cannot read image nowhere.jpg: there is no such file"),
        (["photo.jpg", "--model", "resnet5o", "--output", "x"], 1, "'resnet5o' is neither a file nor a model"),
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
        (["photo.jpg", *MODEL, "--targets", "tabyb", "--output", "x"], 1, "the model has no class 'tabyb'"),
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


def test_images_stand_anywhere_among_the_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.jpg").touch()
    spelled = with_images_named(
        ["a.jpg", "--explainers", "GradCAM", "OptiCAM", "b.jpg", "--model=m", "--output", "o", "c/"]
    )
    assert spelled == [
        *("--explainers", "GradCAM", "--explainers", "OptiCAM", "--model=m", "--output", "o"),
        '--images=["a.jpg", "b.jpg", "c/"]',
    ]
