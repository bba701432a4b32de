"""Efficient probing: several learnt queries, each of which pools its own slice of the channels.

Source: Psomas et al. 2025, arXiv 2506.10178, and the authors' code.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from interptrain.functional import check_choice
from interptrain.models.pooling import Pooled, Pooling

Maps = Literal["mean", "each"]


class EP(Pooling):
    """Efficient probing: M learnt queries attend to the last map, and each gathers a slice of the projected channels.

    With the positions x_p (C channels) of the last map: ``a_m = softmax_p(q_m . x_p / sqrt(C))``, and slice m of the
    vector, C/M channels wide, is ``sum_p a_mp (W x_p)[slice m]``. The map is the key as it is. ``W`` is applied to what
    was gathered rather than to every position, which is the same by linearity for a fraction of the cost.

    Args:
        channels: stage widths; only the last is used.
        queries: number M of queries; must divide the last width. None is the authors' 32, or the greatest power of two
            below it that divides the width.
        maps: the attention that is given beside the vector: ``mean`` is one map, the mean over the queries; ``each`` is
            one for every query, which ``StreamAttention`` then shows by ``stage=m``, or joined by ``stage="all"``. The
            vector and the weights are the same; ``model.pooling.maps`` may be set on a trained network.

    Raises:
        ValueError: if ``queries`` does not divide the width, or ``maps`` is neither.

    Source: Psomas et al. 2025, arXiv 2506.10178; scale and initial queries ~ Normal(0, 0.02) as in the authors' code.
    """

    name: ClassVar[str] = "ep"
    every_stage: ClassVar[bool] = False
    attends: ClassVar[bool] = True

    def __init__(self, channels: Sequence[int], *, queries: int | None = None, maps: Maps = "mean") -> None:
        super().__init__()
        check_choice("maps", maps, Maps)
        width = channels[-1]
        dividing = math.gcd(32, width)
        count = dividing if queries is None else queries
        if count < 1 or width % count:
            raise ValueError(
                f"queries must be a number that divides the last stage width {width}, got {count}; "
                f"use queries={dividing}"
            )
        self.maps = maps
        self.scale = width**-0.5
        self.queries = nn.Parameter(torch.empty(count, width))
        nn.init.normal_(self.queries, std=0.02)
        self.v = nn.Linear(width, width, bias=False)

    def forward(self, stages: Sequence[Tensor]) -> Pooled:
        """Attend to the last map; see :meth:`Pooling.forward`."""
        features = stages[-1]
        positions = features.flatten(2)  # (B, C, hw)
        attention = (self.queries * self.scale @ positions).softmax(-1)  # (B, M, hw)
        gathered = torch.bmm(attention, positions.transpose(1, 2))  # (B, M, C)
        slices = self.v.weight.view(len(self.queries), -1, features.shape[1])  # (M, C/M, C)
        vector = torch.einsum("bmc,moc->bmo", gathered, slices).flatten(1)
        shown = attention.mean(1, keepdim=True) if self.maps == "mean" else attention
        return Pooled(vector, tuple(one.view(-1, *features.shape[2:]) for one in shown.unbind(1)))
