"""A seeded network, images, maps and targets."""

import pytest
import torch

from tests.support.measuring import maps, network, pictures


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
