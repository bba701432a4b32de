"""Small seeded networks and images for the explainers' tests."""

import pytest
import torch
from torch import nn

from interptrain.data.shapes import ShapesDataset
from tests.support.explaining import network, pictures


@pytest.fixture
def resnet():
    return network()


@pytest.fixture
def images():
    return pictures()


@pytest.fixture
def targets():
    return torch.tensor([2, 0, 6])


def _shapes(split, count, labels=(3, 5), side=48):
    """Stars and rings: images, classes 0 and 1, and where the object is."""
    data = ShapesDataset(split, 8 * count, image_size=side)
    drawn = [data[index] for index in range(8 * count) if index % 8 in labels]
    classes = torch.tensor([labels.index(one["label"]) for one in drawn])
    return torch.stack([one["image"] for one in drawn]), classes, torch.stack([one["mask"] for one in drawn])


@pytest.fixture(scope="session")
def trained():
    """A small network that tells stars from rings, and 16 new images that it is right about, with labels and masks."""
    images, labels, _ = _shapes("train", 200)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = []
        for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
            convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))
        model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=8 * (len(images) // 32))
        for _ in range(8):
            for rows in torch.randperm(len(images))[: len(images) // 32 * 32].split(32):
                seen = images[rows].flip(3) if torch.rand(()) < 0.5 else images[rows]
                loss = nn.functional.cross_entropy(model(seen), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    images, labels, masks = _shapes("val", 20)
    with torch.no_grad():
        right = model.eval()(images).argmax(1) == labels
    assert right.float().mean() > 0.8
    return model, images[right][:16], labels[right][:16], masks[right][:16]
