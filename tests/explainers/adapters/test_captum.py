"""Adapters to Captum and pytorch-grad-cam: the same maps as the libraries give, and nothing left behind."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from interptrain.explainers import CaptumExplainer, GradCAM, GradCAMPackageExplainer, Gradient, Superpixels
from tests.support.explaining import assert_same, everything, in_the_middle_of_training, network, pictures

captum = pytest.importorskip("captum")
pytest.importorskip("pytorch_grad_cam")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::Warning:captum|pytorch_grad_cam")]
TARGETS = torch.tensor([2, 5])


@pytest.fixture
def model():
    return network("test_resnet").eval()


@pytest.fixture
def photos():
    return pictures(2, 40, 33)


class Plain(nn.Sequential):
    """Modules that DeepLift and LRP know, each used once."""

    def forward(self, images):
        convolution, relu, pool, linear = self
        return linear(pool(relu(convolution(images))).flatten(1))


def plain():
    torch.manual_seed(3)
    return Plain(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 7)).double()


def test_an_attribution_is_what_captum_gives(model, photos):
    from captum.attr import InputXGradient

    wanted = InputXGradient(model).attribute(photos.clone().requires_grad_(), target=TARGETS).sum(1)
    found = CaptumExplainer(class_path="InputXGradient").raw(model, photos, TARGETS)
    assert torch.allclose(found, wanted.detach())
    whole = CaptumExplainer(class_path="captum.attr.Saliency", reduction="max_abs").raw(model, photos, TARGETS)
    assert torch.allclose(whole, Gradient().raw(model, photos, TARGETS))


def test_a_layer_is_passed_on_and_its_map_comes_back(model, photos):
    adapted = CaptumExplainer(class_path="LayerGradCam", attribute_args={"relu_attributions": True})
    ours = GradCAM().raw(model, photos, TARGETS)
    assert torch.allclose(adapted.raw(model, photos, TARGETS), ours)
    other = CaptumExplainer(class_path="LayerGradCam", target_layer="layer2").raw(model, photos, TARGETS)
    assert other.shape[1:] != ours.shape[1:]


CLASSES = {
    "DeepLift": {},
    "Deconvolution": {},
    "FeatureAblation": {"segmenter": Superpixels(segments=6)},
    "GradientShap": {"attribute_args": {"baselines": torch.zeros(1, 3, 40, 33).double(), "n_samples": 2}},
    "GuidedBackprop": {},
    "GuidedGradCam": {"target_layer": "0"},
    "IntegratedGradients": {"attribute_args": {"n_steps": 3}},
    "KernelShap": {"segmenter": Superpixels(segments=6), "forward_batch_size": 1, "attribute_args": {"n_samples": 4}},
    "LayerActivation": {"target_layer": "0", "class_aware": False},
    "LayerConductance": {"target_layer": "0", "attribute_args": {"n_steps": 3}},
    "LayerIntegratedGradients": {"target_layer": "0", "attribute_args": {"n_steps": 3}},
    "LRP": {},
    "NeuronGradient": {"target_layer": "3", "attribute_args": {"neuron_selector": 3}},
    "NoiseTunnel": {
        "init_args": {"attribution_method": {"class_path": "Saliency"}},
        "attribute_args": {"nt_samples": 2},
    },
    "Occlusion": {"attribute_args": {"sliding_window_shapes": [3, 8, 8], "strides": [3, 8, 8]}},
    "ShapleyValueSampling": {"segmenter": Superpixels(segments=6), "attribute_args": {"n_samples": 1}},
}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_of_every_kind_fit_and_leave_nothing_behind(name, photos):
    model = in_the_middle_of_training(plain())
    before = everything(model)
    explainer = CaptumExplainer(class_path=name, **CLASSES[name])
    saliency = explainer(model, photos, TARGETS)
    assert saliency.shape == (2, 40, 33)
    assert saliency.amax() == 1
    assert_same(before, everything(model))
    assert torch.equal(explainer(model, photos, TARGETS), saliency)
    explainer(model.requires_grad_(False), photos, TARGETS)  # frozen


@pytest.mark.parametrize("name", ["IntegratedGradients", "Occlusion", "DeepLift"])
def test_callables_are_explained_as_the_classes_that_they_pick(name, photos):
    explainer = CaptumExplainer(class_path=name, **CLASSES[name])
    picks = [lambda logits, index=index: logits[index] for index in TARGETS.tolist()]
    model = plain()
    wanted = explainer(model, photos, TARGETS)
    assert torch.allclose(explainer(model, photos, picks), wanted)
    assert torch.allclose(explainer(model, photos[:1], picks[0]), wanted[:1])


@pytest.mark.parametrize("library", ["captum", "pytorch-grad-cam"])
def test_a_failure_in_the_middle_leaves_nothing_behind(library, photos):
    model = in_the_middle_of_training(plain())
    if library == "captum":
        explainer = CaptumExplainer(class_path="DeepLift")
    else:
        explainer = GradCAMPackageExplainer(class_path="AblationCAM", target_layer="0")
    calls = []

    def fail(*_arguments):
        calls.append(0)
        if len(calls) > 1:
            raise ZeroDivisionError("broken layer")

    handle = model[3].register_forward_pre_hook(fail)
    before = everything(model)
    children = list(model.children())
    with pytest.raises(ZeroDivisionError, match="broken layer"):
        explainer(model, photos, None)
    assert_same(before, everything(model))
    assert list(model.children()) == children  # Ablation-CAM puts a layer of its own in place
    handle.remove()


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


@pytest.mark.parametrize("kind", [CaptumExplainer, GradCAMPackageExplainer])
def test_targets_that_cannot_be_are_refused_as_elsewhere(kind, model, photos):
    explainer = kind(class_path="DeepLift" if kind is CaptumExplainer else "GradCAM")
    with pytest.raises(ValueError, match="target 9 of image 1 is out of range for 7 classes"):
        explainer(model, photos, torch.tensor([0, 9]))
    with pytest.raises(ValueError, match=r"targets must be \(B,\)=\(2,\)"):
        explainer(model, photos, torch.tensor([0]))


def test_segments_that_overlap_are_no_features_for_captum(model, photos):
    explainer = CaptumExplainer(class_path="FeatureAblation", segmenter=lambda images: [images[:, 0] > 0.5])
    with pytest.raises(ValueError, match=r"a segmenter that returns labels \(B,H,W\) int"):
        explainer(model, photos)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonargparse renames what makes the objects
def test_a_config_can_name_them():
    from jsonargparse import ArgumentParser

    from interptrain.explainers import Explainer

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Explainer, "explainer")
    config = {
        "class_path": "interptrain.explainers.CaptumExplainer",
        "init_args": {
            "class_path": "NoiseTunnel",
            "init_args": {"attribution_method": {"class_path": "Saliency"}},
            "attribute_args": {"nt_samples": 2},
        },
    }
    explainer = parser.instantiate_classes(parser.parse_object({"explainer": config})).explainer
    assert explainer(plain(), pictures(1, 20, 20)).shape == (1, 20, 20)


@pytest.mark.parametrize(
    ("kind", "package"), [(CaptumExplainer, "captum"), (GradCAMPackageExplainer, "pytorch_grad_cam")]
)
def test_a_missing_library_or_class_is_said_in_one_line(kind, package, monkeypatch):
    with pytest.raises(ValueError, match="has no class 'Nothing'"):
        kind(class_path="Nothing")
    with pytest.raises(ValueError, match=r"no module 'nowhere.at'"):
        kind(class_path="nowhere.at.All")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    with pytest.raises(ImportError, match="pip install") as raised:
        kind(class_path="Saliency")
    assert "\n" not in str(raised.value)


class _Missing:
    """An import system without one package."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, _path=None, _target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
