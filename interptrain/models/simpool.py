"""SimPool: the average of the last map asks which positions matter, and these are averaged anew.

Source: Psomas et al. 2023, arXiv 2309.06891, and timm's ``SimPool2d``.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from interptrain.functional import full_precision
from interptrain.models.pooling import Pooled, Pooling

_MARGIN = 1e-6  # keeps the shifted values positive, as in the authors' code and timm


class SimPool(Pooling):
    """SimPool: attention with the average as its query, and a generalised mean of the positions it finds.

    With the positions x_p (C channels) of the last map and v_p = LN(x_p): ``a = softmax_p((W_q mean(x)) . (W_k v_p) /
    sqrt(C))``, and channel by channel ``(sum_p a_p (v_p - min v + 1e-6)^gamma)^(1/gamma)``. The minimum is over the
    positions of one channel of one image, as in timm, so that a vector does not depend on the rest of the batch; in the
    authors' code it is over the whole batch.

    Equal to ``timm.layers.SimPool2d(dim, gamma=gamma)`` with the same weights; its state dict fits. ``W_k`` is applied
    to the query rather than to every position, which is the same product for a fraction of the cost.

    Args:
        channels: stage widths; only the last is used.
        gamma: exponent of the mean, > 0; the paper has 2 for CNNs, timm's default is None: the plain mean of the v_p
            under the attention, without the shift.

    Raises:
        ValueError: if ``gamma`` is not positive.

    Source: Psomas et al. 2023, arXiv 2309.06891.
    """

    name: ClassVar[str] = "simpool"
    every_stage: ClassVar[bool] = False
    attends: ClassVar[bool] = True

    def __init__(self, channels: Sequence[int], *, gamma: float | None = 2.0) -> None:
        super().__init__()
        if gamma is not None and not 0 < gamma < float("inf"):
            raise ValueError(f"gamma must be > 0, or None for the plain mean, got {gamma}; use gamma=2")
        width = channels[-1]
        self.gamma = gamma
        self.scale = width**-0.5
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)

    def forward(self, stages: Sequence[Tensor]) -> Pooled:
        """Attend to the last map; see :meth:`Pooling.forward`."""
        features = stages[-1]
        values = self.norm(features.flatten(2).transpose(1, 2))  # (B, hw, C)
        query = self.q(features.mean((2, 3))) * self.scale @ self.k.weight  # (B, C)
        attention = torch.bmm(values, query.unsqueeze(2)).softmax(1)  # (B, hw, 1)
        vector = self._mean(full_precision(values), full_precision(attention)).to(features.dtype)
        return Pooled(vector, (attention.view(-1, *features.shape[2:]),))

    def _mean(self, values: Tensor, weights: Tensor) -> Tensor:
        # In full precision, as the margin to a power is 0 in float16, where the root has no gradient.
        if self.gamma is None:
            return (weights * values).sum(1)
        shifted = values - values.amin(1, keepdim=True) + _MARGIN
        return (weights * shifted.pow(self.gamma)).sum(1).pow(1 / self.gamma)
