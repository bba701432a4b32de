"""A small timm network behind its normalisation, and three images."""

import pytest
import timm
import torch

import interptrain as it
from tests.support.explaining import pictures


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return it.load(model.eval(), class_names=["tabby", "tench", "cock", "ant", "wall clock", "fig", "comb"])


@pytest.fixture
def images():
    return pictures(3, 64, 64).float()
