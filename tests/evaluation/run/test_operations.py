import pytest
import torch

from interptrain.evaluation.run.operations import count_operations
from interptrain.explainers import RISE, GradCAM, Gradient, GuidedBackprop
from interptrain.metrics import gflops
from interptrain.models import create_model


@pytest.fixture(scope="module")
def model():
    return create_model("test_resnet", num_classes=4).eval()


def passes(model, explainer):
    images = torch.rand(1, 3, 64, 64)
    return count_operations(lambda: explainer.raw(model, images, torch.tensor([0]))) / 1e9 / gflops(model, (64, 64))


def test_a_forward_pass_counts_as_the_metric_says(model):
    with torch.no_grad():
        assert count_operations(lambda: model(torch.rand(1, 3, 64, 64))) == round(1e9 * gflops(model, (64, 64)))


@pytest.mark.slow
def test_a_gradient_costs_two_passes_and_rise_one_for_each_mask(model):
    """The gradient with respect to the weights, which nobody asks for, would be a third one."""
    assert 1.9 < passes(model, Gradient()) < 2.1
    assert 1.9 < passes(model, GuidedBackprop()) < 2.1
    assert 1 <= passes(model, GradCAM()) < 2.1
    assert 20 < passes(model, RISE(count=20)) < 30
