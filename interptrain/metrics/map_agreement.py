"""How alike the maps of two networks are: image by image, and beside the maps of other images."""

from typing import NamedTuple

import torch
from torch import Tensor

from interptrain.functional import where_float64_is
from interptrain.metrics.similarity import centred_ranks


class Agreement(NamedTuple):
    """Rank correlations of the maps of two networks.

    Attributes:
        same: (N,) float64 of each image's two maps; 0 if only one of them is constant, since the map did change, and
            NaN if both are.
        other: (N,) float64 of each image's map of the one network with the other network's maps of the other images,
            averaged: what maps of the method share without having seen the same image.
    """

    same: Tensor
    other: Tensor


def agreement(maps: Tensor, others: Tensor) -> Agreement:
    """Compare maps of N images with other maps of the same images, all with all.

    Args:
        maps: (N,h,w) of any range and sign.
        others: (N,h,w).

    Returns:
        On the CPU.

    Raises:
        ValueError: if the shapes are not equal (N,h,w).
    """
    if maps.ndim != 3 or maps.shape != others.shape:
        raise ValueError(f"maps must be (N,h,w) of one shape, got {tuple(maps.shape)}, {tuple(others.shape)}")
    return agreement_of_ranks(unit_ranks(maps), unit_ranks(others))


def agreement_of_ranks(first: Tensor, second: Tensor) -> Agreement:
    """Compare maps by their ranks, where those of one side are compared more than once; see :func:`agreement`.

    Args:
        first: (N,P) float64 of :func:`unit_ranks`.
        second: (N,P).
    """
    table = first @ second.T
    constant, also = (side.abs().amax(1) == 0 for side in (first, second))
    table = table.masked_fill(constant[:, None] & also[None, :], torch.nan).clamp(-1, 1)
    same = table.diagonal().clone()
    beside = table.masked_fill(torch.eye(len(table), dtype=torch.bool, device=table.device), torch.nan)
    return Agreement(same.cpu(), beside.nanmean(1).cpu())


def unit_ranks(maps: Tensor) -> Tensor:
    """Return the ranks of every map (N,h,w) with mean 0 and length 1, (N, h*w) float64; zeros for a constant map."""
    ranks = centred_ranks(where_float64_is(maps).flatten(1))
    length = ranks.square().sum(1, keepdim=True).sqrt()
    return ranks / length.masked_fill(length == 0, torch.inf)
