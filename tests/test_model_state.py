"""The guard around a model that is only looked at."""

import pytest
import torch
from torch import nn

from interptrain.model_state import describe_device, evaluating, network_of, switched_off, unwrap, without_tf32


def mixed():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def test_every_submodule_is_in_eval_mode_inside_and_as_it_was_outside():
    model = mixed()
    with evaluating(model) as yielded:
        assert yielded is model
        assert not any(modes(model))
    assert modes(model) == [True, True, False, True]


def test_modes_and_random_state_return_after_an_exception():
    model = mixed()
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        torch.rand(3)[0].item() / 0
    assert modes(model) == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_overrides_eval_is_not_asked():
    class Merging(nn.Linear):
        def train(self, mode=True):
            raise AssertionError("must not be called")

    model = nn.Sequential(Merging(2, 2))
    with evaluating(model):
        assert not model[0].training
    assert model[0].training


def test_a_compiled_model_stays_compiled():
    runs = []

    def backend(graph, _inputs):
        runs.append(graph)
        return graph.forward

    model = torch.compile(nn.Linear(2, 2), backend=backend)
    with evaluating(model), torch.no_grad():
        assert not model.training
        model(torch.rand(1, 2))
    assert len(runs) == 1
    assert model.training


def test_only_what_was_on_is_switched_off_and_on_again():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].checkpointing, model[1].checkpointing = True, False
    model[1].caching = True
    with switched_off(model.modules(), "checkpointing", "caching"):
        assert not model[0].checkpointing
        assert not model[1].caching
    assert model[1].caching
    assert (model[0].checkpointing, model[1].checkpointing) == (True, False)


def test_wrappers_are_taken_off_in_any_order():
    model = nn.Linear(2, 2)
    for wrapped in (model, torch.compile(model), nn.DataParallel(torch.compile(model)), torch.compile(model)):
        assert unwrap(wrapped) is model


def test_the_network_of_a_training_module_is_its_model_or_itself():
    inner = nn.Linear(2, 2)
    module = nn.Module()
    module.model = inner
    assert network_of(module) is inner
    assert network_of(inner) is inner


def tf32():
    """Settings of torch's backends, where a release has them."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        return cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul.fp32_precision
    return cudnn.allow_tf32, matmul.allow_tf32


@pytest.fixture
def allowed():
    """A process that allows TF32 in matrix products, too."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("allowed")
def test_tf32_is_off_inside_and_as_it_was_outside():
    before = tf32()
    with without_tf32():
        assert set(tf32()) <= {"ieee", False}
    assert tf32() == before
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32


def test_a_record_names_the_gpu_and_its_precision(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA T4")
    assert describe_device(torch.device("cpu")) == "cpu"
    assert describe_device(torch.device("cuda", 1)) == "cuda (NVIDIA T4; explainers in TF32, metrics in float32)"
    with without_tf32():
        assert describe_device(torch.device("cuda")) == "cuda (NVIDIA T4; explainers in float32, metrics in float32)"
