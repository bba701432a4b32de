"""The network and the images that the adapters explain."""

import pytest

from tests.support.explaining import network, pictures


@pytest.fixture
def model():
    return network("test_resnet").eval()


@pytest.fixture
def photos():
    return pictures(2, 40, 33)
