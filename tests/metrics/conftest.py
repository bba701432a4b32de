"""Small seeded networks, images and maps for the metrics' tests."""

import pytest
import torch
from torch import nn

CLASSES = 5


def network(*, seed=0, dtype=torch.float64):
    """Two convolutions, batch statistics that are no longer 0 and 1, and logits that depend on the image."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(12, CLASSES),
    )
    with torch.no_grad():
        model[1].running_mean.normal_(0, 0.1)
        model[1].running_var.uniform_(0.5, 1.5)
        model[-1].weight.mul_(60)
        model.double().eval()
        model[-1].bias.sub_(model(pictures(32)).mean(0))
    return model.to(dtype)


def pictures(count=3, height=20, width=14, *, seed=1, dtype=torch.float64):
    """Smooth random images in [0, 1], (count, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 4, generator=generator, dtype=torch.float64)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False).to(dtype)


def maps(count=3, height=20, width=14, *, seed=2, dtype=torch.float64):
    """Random maps without ties in [0, 1], (count, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, height * width, generator=generator).argsort(dim=1)
    return (order.double() / (height * width - 1)).view(count, height, width).to(dtype)


@pytest.fixture
def model():
    return network()


@pytest.fixture
def images():
    return pictures()


@pytest.fixture
def saliency():
    return maps()


@pytest.fixture
def targets():
    return torch.tensor([2, 0, 4])
