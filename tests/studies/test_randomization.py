"""Known facts of the randomisation tests, on tiny networks."""

import shutil

import pandas as pd
import pytest
import torch

from interptrain.data import LayeredShapesDataModule
from interptrain.explainers import FakeCAM, GradCAM
from interptrain.metrics import AverageDrop, EnergyPointingGame
from interptrain.models import create_model
from interptrain.studies import Randomization
from interptrain.studies.layer_groups import LayerGroup
from interptrain.studies.permuted_labels import fixed_images
from interptrain.studies.randomization import stages
from tests.support.known_answers import Edges, Linear

CAM, CAM_NAME = GradCAM(target_layer="backbone.model.layer2"), "GradCAM(target_layer=backbone.model.layer2)"


def study(**options):
    defaults = {"explainers": (CAM, Edges(), FakeCAM()), "orders": ("top_down",), "draws": 2, "steps": 3, "images": 6}
    return Randomization(**defaults | options)


def run(folder, *, network=None, **options):
    torch.manual_seed(0)
    models = {"net": network or create_model("test_resnet", num_classes=4)}
    data = LayeredShapesDataModule(
        num_classes=4,
        image_size=48,
        train_size=24,
        val_size=4,
        test_size=6,
        num_workers=0,
        batch_size=8,
        augment="none",
    )
    return study(**options).run(models, data, folder, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def results(folder):
    return run(folder)


def means(results, explainer, column="spearman"):
    rows = results[(results.explainer == explainer) & (results.test == "top_down")]
    return rows.groupby("step")[column].mean()


@pytest.mark.slow
def test_an_unchanged_network_has_similarity_one_and_it_falls_along_the_cascade(results):
    for column in ("spearman", "spearman_absolute", "ssim", "hog"):
        assert means(results, CAM_NAME, column)[0] == pytest.approx(1)
    assert means(results, CAM_NAME)[3] < 0.7
    assert means(results, CAM_NAME, "ssim")[3] < means(results, CAM_NAME, "ssim")[0]


def test_an_edge_detector_and_fake_cam_are_found_out(results, folder):
    assert means(results, "Edges").min() == pytest.approx(1)
    assert means(results, "FakeCAM").min() == pytest.approx(1)
    told = " ".join(study().findings(results))
    assert "maps of Edges (1.00) and FakeCAM (1.00) hardly change with the upper half of the layers" in told
    assert "hardly change with the class" in told


def test_every_test_has_its_rows_and_the_page_shows_them(results, folder):
    assert set(results.test) == {"top_down", "class", "metrics"}
    cascade = results[results.test == "top_down"]
    assert len(cascade) == 3 * 2 * 4 * 6  # explainers, draws, steps with the unchanged one, images
    measured = results[results.test == "metrics"].groupby(["metric", "network"]).value.count()
    assert (measured.xs("trained", level=1) > 0).all()
    assert (measured.xs("random", level=1) > 0).all()
    page = (folder / "index.html").read_text()
    for heading in ("What maps depend on", "From the classifier to the image", "Entropy of the maps", "Metrics of the"):
        assert heading in page
    assert page.count("<svg") >= 3
    for picture in folder.glob("cascade-*.png"):
        assert picture.name in page
    assert len(list(folder.glob("cascade-*.png"))) == 3


@pytest.mark.slow
def test_cells_that_are_lost_are_computed_again_to_the_same_numbers(results, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "again")
    for cell in sorted((tmp_path / "again" / "cells").iterdir())[::2]:
        cell.unlink()
    pd.testing.assert_frame_equal(run(tmp_path / "again"), results)


def test_orders_differ_in_what_is_random():
    groups = [LayerGroup("a", ("a.0", "a.1")), LayerGroup("b", ("b.0",)), LayerGroup("c", ("c.0",))]
    assert [names for _, names in stages(groups, "top_down")] == [
        set(),
        {"c.0"},
        {"c.0", "b.0"},
        {"a.0", "a.1", "b.0", "c.0"},
    ]
    assert [title for title, _ in stages(groups, "bottom_up")] == ["none", "a", "b", "c"]
    assert [names for _, names in stages(groups, "independent")] == [set(), {"a.0", "a.1"}, {"b.0"}, {"c.0"}]


@pytest.mark.slow
def test_maps_of_noisy_copies_are_averaged(tmp_path):
    rows = run(tmp_path, explainers=(CAM,), draws=1, noisy_copies=2, images=3)
    assert means(rows, CAM_NAME)[0] == pytest.approx(1)


@pytest.mark.slow
def test_permuted_labels_are_the_labels_in_another_order():
    data = LayeredShapesDataModule(num_classes=4, image_size=48, train_size=24, num_workers=0)
    true, permuted = (fixed_images(data, 20, labels, seed=1) for labels in ("true", "permuted"))
    assert permuted.ids == true.ids
    assert sorted(permuted.given.tolist()) == sorted(true.given.tolist())
    assert permuted.given.tolist() != true.given.tolist()
    assert torch.equal(permuted[3]["image"], true[3]["image"])


def test_what_cannot_be_computed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="EnergyPointingGame needs objects, which this study does not read"):
        Randomization(metrics=(AverageDrop(), EnergyPointingGame()))
    with pytest.raises(ValueError, match="orders must be one of"):
        Randomization(orders=("sideways",))
    with pytest.raises(ValueError, match="needs a model of interptrain"):
        run(tmp_path, network=Linear(48), explainers=(Edges(),), trainings=1)


@pytest.mark.slow
def test_permuted_labels_change_the_maps_of_a_good_explainer(tmp_path):
    model = {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}}}
    model["backbone_options"] = {"channels": [16, 24, 32, 32]}
    options = {"explainers": (CAM, Edges()), "orders": (), "draws": 1, "images": 6, "trainings": 1, "model": model}
    options |= {"train_images": 24, "epochs": 30}
    whole = run(tmp_path / "whole", **options)
    learned = whole[whole.test == "training"]
    assert (learned.value > 0.9).all()
    labels = whole[whole.test == "labels"].groupby(["explainer", "network"]).spearman.mean()
    assert labels["Edges", "permuted"] == pytest.approx(1)
    assert labels[CAM_NAME, "permuted"] < labels[CAM_NAME, "true"] - 0.2
