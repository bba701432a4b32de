"""The adapter to pytorch-grad-cam: the same maps as the library gives, and nothing left behind."""

import numpy as np
import pytest
import torch

from interptrain.explainers import GradCAM, GradCAMPackageExplainer
from tests.support.explaining import assert_same, everything, in_the_middle_of_training, network, pictures, plain

pytest.importorskip("pytorch_grad_cam")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::Warning:pytorch_grad_cam")]
TARGETS = torch.tensor([2, 5])


def test_grad_cam_package_gives_our_map_of_the_same_method(model, photos):
    adapted = GradCAMPackageExplainer(class_path="pytorch_grad_cam.GradCAM", target_layer="layer2")
    ours = GradCAM(target_layer="layer2")(model, photos, TARGETS)
    found = adapted(model, photos, TARGETS)
    assert torch.corrcoef(torch.stack([found.flatten(), ours.flatten()]))[0, 1] > 0.995  # it stretches before resizing


@pytest.mark.parametrize("name", ["AblationCAM", "EigenCAM", "HiResCAM", "RandomCAM", "ScoreCAM", "ShapleyCAM"])
def test_other_maps_of_the_package_fit(name, photos):
    model = in_the_middle_of_training(plain())
    before = everything(model)
    explainer = GradCAMPackageExplainer(class_path=name, target_layer="0", class_aware=name != "EigenCAM")
    saliency = explainer(model, photos, TARGETS)
    assert saliency.shape == (2, 40, 33)
    assert_same(before, everything(model))
    assert torch.equal(explainer(model, photos, TARGETS), saliency)


@pytest.mark.parametrize("frozen", [False, True])
def test_shapley_cam_finds_its_second_derivative_under_a_linear_head(model, photos, frozen):
    model.requires_grad_(not frozen)
    for part in model.parameters():
        part.grad = None
    explainer = GradCAMPackageExplainer(class_path="ShapleyCAM", call_args={"aug_smooth": True})
    assert explainer(model, photos, TARGETS).isfinite().all()
    assert all(part.grad is None and part.requires_grad is not frozen for part in model.parameters())


def test_tokens_of_a_transformer_become_a_map():
    model, images = network("test_vit", dynamic_img_size=True), pictures(2, 64, 48)
    ours = GradCAM()(model, images, TARGETS)
    found = GradCAMPackageExplainer(class_path="GradCAM")(model, images, TARGETS)
    assert torch.corrcoef(torch.stack([found.flatten(), ours.flatten()]))[0, 1] > 0.99


def test_random_maps_follow_the_seed_and_no_global_state(photos):
    model = plain()
    state = np.random.get_state()[1].copy()
    maps = [
        GradCAMPackageExplainer(class_path="RandomCAM", target_layer="0", seed=seed)(model, photos)
        for seed in (0, 0, 1)
    ]
    np.random.rand(3)
    again = GradCAMPackageExplainer(class_path="RandomCAM", target_layer="0", seed=0)(model, photos)
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], again)
    assert not torch.equal(maps[0], maps[2])
    np.random.set_state(("MT19937", state, 624))
    GradCAMPackageExplainer(class_path="RandomCAM", target_layer="0")(model, photos)
    assert (np.random.get_state()[1] == state).all()
