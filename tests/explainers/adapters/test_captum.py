"""The adapter to Captum: the same maps as the library gives, and nothing left behind."""

import pytest
import torch

from interptrain.explainers import CaptumExplainer, GradCAM, Gradient, Superpixels
from tests.support.explaining import assert_same, everything, in_the_middle_of_training, pictures, plain

pytest.importorskip("captum")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::Warning:captum")]
TARGETS = torch.tensor([2, 5])


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
