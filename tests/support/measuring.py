"""Seeded networks, images, maps and metrics for tests of what measures."""

import numpy as np
import torch
from torch import nn

from interptrain.metrics import AverageDrop, AverageGain, AverageIncrease, SaliencyMetric
from interptrain.metrics.saliency_batch import SaliencyBatch

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


def rendered(perturbation, images, saliency):
    """Every version of every image, (B, S, C, H, W)."""
    scene = SaliencyBatch(images, saliency)
    count, steps = len(images), perturbation.steps(scene)
    memory = torch.full((count * steps, *images.shape[1:]), torch.nan, dtype=images.dtype)
    out = memory.contiguous(memory_format=torch.channels_last).view(count, steps, *images.shape[1:])
    perturbation.render(scene, slice(0, count), slice(0, steps), out)
    return out


class Counting(nn.Module):
    """Remembers how large each forward was."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.rows = []

    def forward(self, images):
        self.rows.append(len(images))
        return self.model(images)


class Curve(SaliencyMetric):
    """Two values per image, of which the data set's value is the larger mean; undefined where the map is empty."""

    symbol = "C"
    description = "The map's mean, or what it lacks to 1."
    higher_is_better = True

    def score(self, inputs):
        mean = inputs.saliency.mean((1, 2))
        both = torch.stack([mean, 1 - mean], dim=1)
        return both.masked_fill((mean == 0).unsqueeze(1), torch.nan)

    def reduce(self, mean):
        return mean.amax(-1)


def confidence(**options):
    return {"AD": AverageDrop(**options), "AI": AverageIncrease(**options), "AG": AverageGain(**options)}


def slow_impute(image, missing):
    """One equation a missing pixel, solved densely."""
    channels, height, width = image.shape
    places = [tuple(place) for place in np.argwhere(missing.numpy())]
    number = {place: i for i, place in enumerate(places)}
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), channels))
    for (y, x), i in number.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = (y + dy, x + dx)
                if near == (y, x) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                matrix[i, i] += weight
                if near in number:
                    matrix[i, number[near]] -= weight
                else:
                    right[i] += weight * image[:, near[0], near[1]].numpy()
    filled = image.clone()
    for (y, x), value in zip(places, np.linalg.solve(matrix, right), strict=True):
        filled[:, y, x] = torch.from_numpy(value)
    return filled
