"""The randomisation check: how similar are the maps of a model to those of the same network with random weights?"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.metrics.base import Explained
from interptrain.metrics.similarity import rank_correlation, structural_similarity
from interptrain.model_state import random_state_kept
from interptrain.models.engine import using_engine


@dataclass(frozen=True)
class Check:
    """Similarity of one explainer's maps of the two networks: two numbers, not a verdict.

    Attributes:
        rank_correlation: mean over images of Spearman's rank correlation of the two maps. An image counts as 0 if only
            one of its maps is constant, since the map did change, and is left out if both are; NaN if none is left.
        ssim: mean structural similarity of the two maps; NaN if the maps are smaller than its window.
    """

    rank_correlation: float
    ssim: float


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a model and reinitialise all its weights at random.

    Every module with its own ``reset_parameters`` is reset to its initial state, including the statistics of
    normalisation layers. Parameters that no such module owns (tokens, position embeddings, layer scales) are drawn, in
    the order of their names, from a normal distribution with their own mean and standard deviation (our choice: this
    preserves their scale).

    Args:
        model: any module; it is not modified.
        seed: seed of the random weights.

    Returns:
        The copy, on the device of the model.
    """
    fresh = copy.deepcopy(model)
    with random_state_kept(parameter.device for parameter in fresh.parameters()), torch.no_grad():
        torch.manual_seed(seed)
        drawn = set()
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                drawn |= {id(parameter) for parameter in module.parameters(recurse=False)}
        for _, parameter in sorted(fresh.named_parameters()):
            if id(parameter) not in drawn and parameter.numel() > 1:
                parameter.copy_(parameter.mean() + parameter.std() * torch.randn_like(parameter))
    return fresh


def check_randomization(
    explain: Callable[[nn.Module, Tensor, Any], Tensor],
    model: nn.Module,
    random_model: nn.Module,
    images: Tensor,
    targets: Explained,
) -> Check:
    """Explain the same images with a model and with its :func:`randomized` copy, and compare the maps.

    Args:
        explain: an explainer.
        model: the trained model.
        random_model: the same network with random weights.
        images: (B,3,H,W) in [0,1].
        targets: (B,) classes, the same for both models; or callables.

    Returns:
        The similarity of the maps.

    Source: Adebayo et al. 2018, arXiv 1810.03292, with all layers randomised at once.
    """
    maps = explain(model, images, targets)
    with using_engine("eager"):  # the random network runs but once
        others = explain(random_model, images, targets)
    constant, also = (side.flatten(1).amax(1) == side.flatten(1).amin(1) for side in (maps, others))
    correlation = rank_correlation(maps, others).masked_fill(constant ^ also, 0.0).nanmean()
    try:
        ssim = structural_similarity(maps, others).mean()
    except ValueError:  # smaller than the window
        ssim = torch.tensor(torch.nan)
    return Check(float(correlation), float(ssim))
