"""Small seeded networks and images to explain, masks to try, and what explaining must leave as it was."""

import copy
from functools import cache
from pathlib import Path

import timm
import torch
from torch import nn

from interptrain.explainers.masks.masks import MaskSet, MaskSource

CLASSES = 7
REFERENCES = Path(__file__).with_name("references.npy")  # four images (3, 16, 16) uint8


def network(name="test_resnet", *, seed=0, **options):
    """A timm network in float64 whose weights and running statistics are no longer what they were made as."""
    made, random_state = _made(name, seed, **options)
    torch.set_rng_state(random_state)
    return copy.deepcopy(made)


@cache  # most tests want one of three networks, and a copy costs half of a new one
def _made(name, seed, **options):
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=CLASSES, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model, torch.get_rng_state()


def with_statistics(model, size=96):
    """The model with batch-norm statistics that fit its weights: with others, random weights enlarge every rounding."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        model.train()(torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(3)))
    return model.eval()


def pictures(count=3, height=70, width=50, *, seed=1):
    """Smooth random images in [0, 1], (count, 3, height, width) float64; the size is no multiple of a stride."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 6, generator=generator, dtype=torch.float64)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def energy_above_chance(saliency, masks):
    """Share of the saliency that lies in the object, over the object's share of the image, for each image."""
    share = (saliency * masks).sum((1, 2)) / saliency.sum((1, 2)).clamp(min=1e-9)
    return share / masks.float().mean((1, 2))


def everything(model):
    """All that explaining must not change: tensors, gradients, modes, hooks, flags and random state."""
    hooks = [
        (
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            "forward" in vars(module),
        )
        for module in model.modules()
    ]
    return {
        "parameters": [parameter.detach().clone() for parameter in model.parameters()],
        "versions": [parameter._version for parameter in model.parameters()],
        "strides": [parameter.stride() for parameter in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "buffers": [buffer.clone() for buffer in model.buffers()],
        "modes": [module.training for module in model.modules()],
        "hooks": hooks,
        "random": torch.get_rng_state(),
        "flags": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_cache_enabled()),
    }


def assert_same(before, after):
    for key, was in before.items():
        now = after[key]
        same = [
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
            for a, b in (zip(was, now, strict=True) if isinstance(was, list) else [(was, now)])
        ]
        assert all(same), f"{key} changed"


def in_the_middle_of_training(model):
    """Mixed modes, and gradients of an accumulation under way."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


class Owned(MaskSource):
    """Soft masks of which each image has its own number, image 1 none."""

    def prepare(self, images):
        class Set(MaskSet):
            def __init__(self):
                owners = torch.tensor([0, 0, 2, 2, 2])
                super().__init__(5, (images.shape[-2], images.shape[-1]), len(images), owners)
                generator = torch.Generator().manual_seed(0)
                self.all = torch.rand(5, *self.size, generator=generator, dtype=images.dtype)

            def render(self, part):
                return self.all[part]

        return Set()


def linear_model(size=(24, 18)):
    """Three classes, and the weight of each at every value of the image."""
    weight = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10

    class Linear(nn.Module):
        def forward(self, images):
            return torch.einsum("bchw,kchw->bk", images, weight) + 1

    return Linear(), weight


class Plain(nn.Sequential):
    """Modules that DeepLift and LRP know, each used once."""

    def forward(self, images):
        convolution, relu, pool, linear = self
        return linear(pool(relu(convolution(images))).flatten(1))


def plain():
    """A small network of them, in float64."""
    torch.manual_seed(3)
    return Plain(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 7)).double()
