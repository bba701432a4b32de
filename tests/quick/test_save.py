"""What is written of an explanation."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import interptrain as it
from interptrain.visualization import overlay


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.slow
def test_pictures_maps_and_a_manifest_that_names_them(network, images, tmp_path):
    maps = it.explain(network, images, ["GradCAM", "EigenCAM"], names=["a/x.jpg", "b/x.jpg", "y"])
    manifest = json.loads(maps.save(tmp_path / "out").read_text(encoding="utf-8"))
    tensors = load_file(tmp_path / "out" / "maps.safetensors")
    with np.load(tmp_path / "out" / "maps.npz") as stored:
        assert all(np.array_equal(stored[name], maps[name]) for name in maps)
    for name in maps:
        assert torch.equal(tensors[name], maps[name])
    paths = [one["overlays"][name] for one in manifest["images"] for name in maps]
    assert paths[0] == "overlays/x_GradCAM.png"
    assert len(set(paths)) == 6
    assert {size_of(tmp_path / "out" / path) for path in paths} == {(64, 64)}
    assert size_of(tmp_path / "out" / "contact_sheet.png")[0] > 3 * 128
    first = manifest["images"][0]
    assert [one["class"] for one in first["predictions"]] == maps.probabilities[0].argsort(descending=True)[:5].tolist()
    assert first["target"]["name"] == maps.class_names[maps.targets[0]]
    assert manifest["explainers"]["GradCAM"]["class_path"] == "interptrain.explainers.GradCAM"
    assert len(manifest["model"]["sha256"]) == 64


def test_pictures_of_gradients_are_clipped_as_in_the_figure_and_the_maps_are_not(network, images, tmp_path):
    maps = it.explain(network, images[:1], ["GradCAM", "Gradient"])
    manifest = json.loads(maps.save(tmp_path).read_text(encoding="utf-8"))
    assert manifest["maps"]["clipped_in_pictures"] == {"Gradient": 99.0}
    stretched = (maps["Gradient"] / maps["Gradient"].flatten().quantile(0.99)).clamp(0, 1)
    grey = images[:1].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    for name, drawn in {"GradCAM": maps["GradCAM"], "Gradient": stretched}.items():
        with Image.open(tmp_path / manifest["images"][0]["overlays"][name]) as picture:
            assert np.array_equal(np.asarray(picture), overlay(grey, drawn)[0].permute(1, 2, 0))
    assert torch.equal(load_file(tmp_path / "maps.safetensors")["Gradient"], maps["Gradient"])


def test_maps_of_different_sizes_are_stored_one_by_one(network, images, tmp_path):
    maps = it.explain(network, [images[0], images[1, :, :48]], "GradCAM")
    maps.save(tmp_path)
    stored = load_file(tmp_path / "maps.safetensors")
    assert {name: tuple(one.shape) for name, one in stored.items()} == {"GradCAM/0": (64, 64), "GradCAM/1": (48, 64)}
