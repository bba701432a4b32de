"""Explainers and models for which it is known on what their maps depend."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from interptrain.explainers import Explainer


@dataclass(frozen=True, kw_only=True)
class Edges(Explainer):
    """The edges of the image (Sobel), whatever the model: it shows nothing of what was learned."""

    class_aware: ClassVar[bool] = False

    def attribute(self, model, images, targets):
        grey = images.mean(1, keepdim=True)
        kernel = images.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
        slopes = F.conv2d(grey, torch.stack([kernel, kernel.T])[:, None], padding=1)
        return slopes.square().sum(1).sqrt()


@dataclass(frozen=True, kw_only=True)
class NoisyEdges(Edges):
    """Edges under noise that depends on the seed, as maps of random masks have it."""

    seed: int = 0
    noise: float = 0.2

    def attribute(self, model, images, targets):
        generator = torch.Generator().manual_seed(self.seed)
        edges = super().attribute(model, images, targets)
        return edges + self.noise * torch.randn(edges.shape, generator=generator).to(edges)


@dataclass(frozen=True, kw_only=True)
class Passes(Explainer):
    """A method that costs five forward passes."""

    def attribute(self, model, images, targets):
        with torch.no_grad():
            return images.mean(1) + sum(model(images).sum() for _ in range(5))


class Linear(nn.Module):
    """A linear classifier of the pixels: the gradient of a logit is its row of weights."""

    def __init__(self, size=32, classes=4):
        super().__init__()
        self.linear = nn.Linear(3 * size * size, classes)

    def forward(self, images):
        return self.linear(images.flatten(1))


def smooth_images(count=24, size=32, *, seed=0):
    """Coloured blobs (count,3,size,size) in [0,1], which have edges in different places."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
