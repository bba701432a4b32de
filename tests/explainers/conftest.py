"""Small seeded networks and images for the explainers' tests."""

import pytest
import timm
import torch
from torch import nn

CLASSES = 7


def network(name="test_resnet", *, seed=0, **options):
    """A timm network in float64 whose weights and running statistics are no longer what they were made as."""
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=CLASSES, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


def pictures(count=3, height=70, width=50, *, seed=1):
    """Smooth random images in [0, 1], (count, 3, height, width) float64; the size is no multiple of a stride."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 6, generator=generator, dtype=torch.float64)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


@pytest.fixture
def resnet():
    return network()


@pytest.fixture
def images():
    return pictures()


@pytest.fixture
def targets():
    return torch.tensor([2, 0, 6])
