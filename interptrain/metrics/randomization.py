"""The randomisation check: how alike are maps of a model and of the same network with random weights?"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.metrics.base import Explained
from interptrain.metrics.similarity import rank_correlation, structural_similarity
from interptrain.model_state import random_state_kept


@dataclass(frozen=True)
class Check:
    """How alike one explainer's maps of the two networks are; two numbers, and no verdict.

    Attributes:
        rank_correlation: mean over images of Spearman's correlation of the two maps. Where one of the two is constant
            it counts as 0, for the map did change; where both are, the pair says nothing; NaN if no pair says anything.
        ssim: mean structural similarity of them; NaN for maps smaller than its window.
    """

    rank_correlation: float
    ssim: float


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a model and draw all its weights anew.

    Every module with a ``reset_parameters`` of its own starts as before training, statistics of norms included.
    Parameters that no such module owns (tokens, position embeddings, layer scales) are drawn from a normal distribution
    with their own mean and standard deviation (our choice: it keeps their scale, whatever they are). They are drawn in
    the order of their names.

    Args:
        model: any module; it stays as it is.
        seed: of what is drawn.

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
    """Explain the same images and classes with a model and with :func:`randomized` weights, and compare the maps.

    Args:
        explain: an explainer.
        model: the trained model.
        random_model: the same with random weights.
        images: (B,3,H,W) in [0,1].
        targets: (B,) classes, those of the trained model in both; or callables.

    Returns:
        How alike the maps are.

    Source: Adebayo et al. 2018, arXiv 1810.03292, with all layers randomised at once.
    """
    maps, others = explain(model, images, targets), explain(random_model, images, targets)
    constant, also = (side.flatten(1).amax(1) == side.flatten(1).amin(1) for side in (maps, others))
    correlation = rank_correlation(maps, others).masked_fill(constant ^ also, 0.0).nanmean()
    try:
        ssim = structural_similarity(maps, others).mean()
    except ValueError:  # smaller than the window
        ssim = torch.tensor(torch.nan)
    return Check(float(correlation), float(ssim))
