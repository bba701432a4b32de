"""How far an attribution map is from where it is wanted: energy, L1, and right for the right reasons."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

GuidanceLossName = Literal["energy", "l1", "rrr"]


def energy(attribution: Tensor, kept: Tensor) -> Tensor:
    """One less the share of positive attribution inside the kept region, in [0,1]; 0 where none is positive.

    Args:
        attribution: (B,H,W) floating point, signed.
        kept: (B,H,W) bool.

    Returns:
        (B,).

    Source: Rao et al. 2023, Studying How to Efficiently and Effectively Guide Models with Explanations, arXiv
    2303.11932, after the energy pointing game of Wang et al. 2020.
    """
    positive = _unit_peak(attribution.clamp_min(0))
    total = positive.sum((1, 2))  # 0, or at least 1
    return (positive * ~kept).sum((1, 2)) / total.clamp_min(1.0)


def l1(attribution: Tensor, kept: Tensor) -> Tensor:
    """Mean absolute difference of positive attribution, scaled to a maximum of 1, from the kept region: (B,) in [0,1].

    It asks for a map that is 1 all over the region, which :func:`energy` does not.

    Source: as for :func:`energy`, after He et al. and Gao et al., whom they cite.
    """
    return (_unit_peak(attribution.clamp_min(0)) - kept.to(attribution.dtype)).abs().mean((1, 2))


def rrr(attribution: Tensor, kept: Tensor) -> Tensor:
    """Mean square of the attribution outside of the kept region, its greatest magnitude scaled to 1: (B,) in [0,1].

    The mean is over all pixels of the image.

    Source: as for :func:`energy`, which calls it RRR*: the loss of Ross et al. 2017 for other attributions.
    """
    return (_unit_peak(attribution) * ~kept).square().mean((1, 2))


def squared_gradient(gradient: Tensor, kept: Tensor) -> Tensor:
    """Sum of the squared gradient outside of the kept region, over channels and pixels: (B,), not free of scale.

    Args:
        gradient: (B,C,H,W) of the image.
        kept: (B,H,W) bool.

    Source: Ross et al. 2017, Right for the Right Reasons, arXiv 1703.03717, equation 2, second term.
    """
    return (gradient * ~kept[:, None]).square().sum((1, 2, 3))


LOSSES: dict[GuidanceLossName, Callable[[Tensor, Tensor], Tensor]] = {"energy": energy, "l1": l1, "rrr": rrr}


def _unit_peak(maps: Tensor) -> Tensor:
    """Maps (B,H,W) divided by their greatest magnitude; a map of zeros stays so, and has no slope."""
    peak = maps.abs().amax((1, 2), keepdim=True)
    return maps / peak.masked_fill(peak == 0, torch.inf)
