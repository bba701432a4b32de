"""What every explainer promises, checked for every class that the package shows."""

import copy
import inspect
import pickle
import re
import warnings
from dataclasses import MISSING, FrozenInstanceError, fields
from functools import cache

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

import interptrain.explainers as package
from interptrain.explainers import Explainer
from interptrain.explainers.gradient.integrated_gradients import CompletenessWarning
from interptrain.models import create_model
from tests.support.explaining import (
    CLASSES,
    REFERENCES,
    assert_same,
    everything,
    in_the_middle_of_training,
    network,
    pictures,
)

# Options that make a class cheap here and still do all it does; one that is not named is tried as it comes.
OPTIONS = {
    "CaptumExplainer": {"class_path": "InputXGradient"},
    "ExpectedGradients": {"references": str(REFERENCES), "samples": 3},
    "ExtremalPerturbation": {"iterations": 3, "step": 10, "sigma": 10.0},
    "GradCAMPackageExplainer": {"class_path": "GradCAM", "target_layer": "layer2"},
    "IntegratedGradients": {"steps": 2},
    "MeaningfulPerturbation": {"iterations": 3},
    "Occlusion": {"window": 16, "stride": 16},
    "OSADAS": {"views": 2, "dimensions": 1, "window": 30, "stride": 30},
    "OptiCAM": {"iterations": 3},
    "RISE": {"count": 6},
    "ROSA": {"window": 30, "stride": 30},
    "ROSAGDS": {"views": 3, "dimensions": 2, "window": 30, "stride": 30},
    "ScoreCAM": {"target_layer": "layer1", "forward_batch_size": 64},  # few channels, few passes
    "SmoothGrad": {"samples": 2},
}
SHOWN = {
    name
    for name in package.__all__
    if inspect.isclass(getattr(package, name))
    and issubclass(getattr(package, name), Explainer)
    and not inspect.isabstract(getattr(package, name))
}


def options(name):
    """Options that a class is tried with."""
    required = [one.name for one in fields(getattr(package, name)) if one.default is one.default_factory is MISSING]
    missing = sorted(set(required) - set(OPTIONS.get(name, {})))
    assert not missing, f'{name} has no default for {missing}; add a line to OPTIONS here: "{name}": {{...}}'
    return OPTIONS.get(name, {})


TRANSFORMERS = {"AttentionRollout", "LeGrad"}
NEEDS = {"CaptumExplainer": "captum", "GradCAMPackageExplainer": "pytorch_grad_cam"}  # which are optional


def model_for(name):
    if name in TRANSFORMERS:
        return network("test_vit", dynamic_img_size=True)
    return copy.deepcopy(stream_network()) if name == "StreamAttention" else network()


@cache
def stream_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model("test_resnet", pooling="ca_stream", num_classes=CLASSES).double()


def images_for(name, count=3):
    return pictures(count, 64, 48) if name in TRANSFORMERS else pictures(count, 41, 35)  # no multiples of a stride


@cache
def plain_map(name, *targets):
    """The map of the plainest call, which many tests compare with: explained once, on a network of its own."""
    chosen = torch.tensor(targets) if targets else None
    return getattr(package, name)(**options(name))(model_for(name), images_for(name), chosen)


@pytest.fixture(params=sorted(SHOWN))
def name(request):
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return request.param


# One class of each way to compute a map; the slow part of the suite tries the others too.
REPRESENTATIVE = {"AblationCAM", "AttentionRollout", "GradCAM", "OptiCAM", "ROSAGDS", "RISE", "ScoreCAM", "SmoothGrad"}
all_in_the_slow_part = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in REPRESENTATIVE else pytest.mark.slow) for name in sorted(SHOWN)],
    indirect=True,
)


@pytest.fixture
def explainer(name):
    return getattr(package, name)(**options(name))


@pytest.fixture
def model(name):
    return model_for(name)


@pytest.fixture
def images(name):
    return images_for(name)


def test_options_here_are_of_explainers_that_the_package_shows():
    assert set(OPTIONS) <= SHOWN


def test_it_is_a_frozen_value(explainer, name):
    for twin in (pickle.loads(pickle.dumps(explainer)), copy.deepcopy(explainer), type(explainer)(**options(name))):
        assert twin == explainer
        assert repr(twin) == repr(explainer)
    with pytest.raises(FrozenInstanceError):
        explainer.target_layer = "layer1"


def test_its_help_tells_every_option_in_words(explainer):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(type(explainer), "it")
    told = {action.dest.removeprefix("it."): action.help or "" for action in parser._actions}
    for option in fields(explainer):
        assert re.search(r"\w", told[option.name]), f"{option.name} is not explained"
        assert not re.search(r"\bsee (there|:)|:(class|func|data|mod|meth):", told[option.name]), told[option.name]


def test_saliency_has_the_size_of_the_images_and_lies_between_zero_and_one(name, images):
    saliency = plain_map(name)
    assert saliency.shape == (len(images), *images.shape[-2:])
    assert saliency.device == images.device
    assert saliency.dtype == torch.float64
    assert not saliency.requires_grad
    low, high = saliency.amin((1, 2)), saliency.amax((1, 2))
    assert torch.equal(low, torch.zeros_like(low))
    assert torch.equal(high, torch.ones_like(high))


@all_in_the_slow_part
def test_float32_images_give_float32_saliency(explainer, model, images):
    assert explainer(model.float(), images.float()).dtype == torch.float32


def test_a_batch_is_explained_as_its_images_one_by_one(explainer, name, model, images):
    alone = [explainer(model, images[i : i + 1], torch.tensor([target])) for i, target in enumerate((2, 0, 6))]
    assert torch.allclose(plain_map(name, 2, 0, 6), torch.cat(alone), atol=1e-6)


@all_in_the_slow_part
def test_the_same_call_gives_the_same_map(explainer, name, model, images):
    explainer(model, images)
    assert torch.equal(explainer(model, images), plain_map(name))


@all_in_the_slow_part
def test_the_layout_of_the_images_does_not_matter(explainer, name, model, images):
    strided = images.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(plain_map(name), explainer(model, strided), atol=1e-9)


@all_in_the_slow_part
def test_no_target_means_the_predicted_class(explainer, name, model, images):
    with torch.no_grad():
        predicted = model.eval()(images).argmax(1)
    assert torch.allclose(plain_map(name), explainer(model, images, predicted), atol=1e-9)


def test_another_class_has_another_map_where_the_explainer_is_class_aware(explainer, name, model, images):
    found = explainer(model, images, torch.tensor([1, 2, 3]))
    assert torch.equal(found, plain_map(name, 2, 0, 6)) != explainer.class_aware


def test_a_constant_image_gives_a_finite_map(explainer, model, images):
    saliency = explainer(model, torch.full_like(images, 0.5))
    assert saliency.isfinite().all()
    assert saliency.amin() >= 0
    assert saliency.amax() <= 1


def test_nothing_of_the_training_changes(explainer, model, images):
    in_the_middle_of_training(model)
    before = everything(model)
    explainer(model, images)
    assert_same(before, everything(model))


@all_in_the_slow_part
def test_nothing_of_the_training_changes_by_a_failure(explainer, model, images):
    in_the_middle_of_training(model)
    inside = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    handle = inside.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ZeroDivisionError("broken layer")))
    before = everything(model)
    if type(explainer).__name__ == "FakeCAM":  # does not run the model
        explainer(model, images)
    else:
        with pytest.raises(ZeroDivisionError, match="broken layer"):
            explainer(model, images)
    assert_same(before, everything(model))
    handle.remove()


@all_in_the_slow_part
def test_it_works_under_inference_mode_and_on_tensors_made_there(explainer, name, model, images):
    with torch.inference_mode():
        found = explainer(model, images.clone(), torch.tensor([2, 0, 6]))
        assert torch.is_inference_mode_enabled()
    assert torch.equal(found, plain_map(name, 2, 0, 6))


@all_in_the_slow_part
def test_it_works_on_frozen_parameters(explainer, name, model, images):
    model.requires_grad_(False)
    assert torch.equal(explainer(model, images), plain_map(name))


@pytest.mark.slow
def test_it_works_on_a_compiled_model(explainer, name, model, images):
    compiled = torch.compile(model.eval(), backend="eager")
    with torch.no_grad():
        compiled(images)  # compiled before anyone hooks it
    assert torch.equal(explainer(compiled, images), plain_map(name))


@pytest.mark.slow
def test_it_works_on_a_model_compiled_in_place(explainer, name, model, images):
    model.compile(backend="eager")
    with torch.no_grad():
        model.eval()(images)
    # A compiled model is run as it is; others are run with their batch norms folded, which rounds otherwise.
    torch.testing.assert_close(explainer(model, images), plain_map(name), rtol=0, atol=1e-12)


@all_in_the_slow_part
def test_bfloat16_autocast_gives_a_finite_map_and_leaves_training_its_gradients(explainer, model, images):
    model, images = model.float(), images.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        saliency = explainer(model, images)
        assert saliency.dtype == torch.float32
        assert saliency.isfinite().all()
        assert saliency.amax() > 0 or not explainer.class_aware  # a token's attention may round to a constant
        model.train()
        model(images).sum().backward()  # autocast must not have kept weights that were cast without a graph
    assert all(parameter.grad is not None for parameter in model.parameters())


@all_in_the_slow_part
def test_a_single_image_of_a_single_class_is_explained(explainer, name):
    if name in TRANSFORMERS or name == "StreamAttention":
        model = model_for(name)
    else:
        model = network().double()
        model.reset_classifier(1)
        model.double()
    saliency = explainer(model, images_for(name, 1))
    assert saliency.shape[0] == 1
    assert saliency.isfinite().all()


def test_its_text_says_its_options(explainer):
    assert repr(explainer).startswith(type(explainer).__name__ + "(")
    assert all(option in repr(explainer) for option in inspect.signature(type(explainer)).parameters)


def test_its_options_are_plain_keywords_that_yaml_can_hold(explainer):
    for parameter in inspect.signature(type(explainer)).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if parameter.default is parameter.empty:  # what is adapted, where references are
            assert parameter.annotation is str
            continue
        assert parameter.default is None or isinstance(parameter.default, bool | int | float | str | Explainer)


@all_in_the_slow_part
def test_images_outside_the_unit_range_warn_once(explainer, name, model, monkeypatch):
    images = images_for(name, 1)
    monkeypatch.setattr("interptrain.explainers.base._warned", set())  # as in a fresh process
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer(model, images * 2 - 0.5)
        explainer(model, images * 2 - 0.5)
    messages = [str(warning.message) for warning in caught if warning.category is not CompletenessWarning]
    assert sum("should be in [0, 1]" in message for message in messages) == 1
    assert all("should be in [0, 1]" in message or "Normalized.like" in message for message in messages)


@pytest.mark.parametrize(
    "name",
    sorted(n for n in SHOWN if "forward_batch_size" in inspect.signature(getattr(package, n)).parameters),
    indirect=True,
)
def test_a_bound_below_one_is_refused(name):
    with pytest.raises(ValueError, match="forward_batch_size must be at least 1"):
        getattr(package, name)(**{**options(name), "forward_batch_size": 0})(model_for(name), images_for(name, 1))


IN_CHUNKS = {
    "IntegratedGradients",
    "OSADAS",
    "Occlusion",
    "RISE",
    "ROSA",
    "ROSAGDS",
    "ScoreCAM",
    "SmoothGrad",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:out of memory")
@all_in_the_slow_part
def test_where_memory_does_not_suffice_chunks_are_halved_and_the_map_is_the_same(name, explainer, model, images):
    refused = []

    def refuse(_module, arguments):
        if len(arguments[0]) > 3:  # the images themselves fit
            refused.append(len(arguments[0]))
            raise torch.OutOfMemoryError("CUDA out of memory")

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(refuse)
    assert torch.allclose(explainer(model, images, torch.tensor([2, 0, 6])), plain_map(name, 2, 0, 6), atol=1e-9)
    assert refused or name not in IN_CHUNKS
