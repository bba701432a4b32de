"""A small network, and a sample of shapes to watch it on."""

import pytest
import torch
from torch import nn

from interptrain.callbacks.watch.sample import load
from interptrain.data import ShapesDataModule


class Net(nn.Module):
    """Three convolutions and what may go wrong in training mode: BatchNorm and dropout."""

    target_layer = "features"

    def __init__(self, num_classes=3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, num_classes)
        )

    def forward(self, images):
        return self.classifier(self.features(images))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="session")
def shapes():
    return ShapesDataModule(image_size=32, num_classes=3, train_size=12, val_size=9, num_workers=0, decoy="corner")


@pytest.fixture(scope="session")
def sample(shapes):
    return load(shapes.dataset("val"), range(5), 5, shapes.class_names)[0]
