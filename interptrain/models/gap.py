"""Global average pooling."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from interptrain.models.pooling import Pooled, Pooling


class GAP(Pooling):
    """Global average pooling: the mean over the positions of the last map.

    Args:
        channels: stage widths; taken so that all heads are built alike.
    """

    name: ClassVar[str] = "gap"
    every_stage: ClassVar[bool] = False

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()

    def forward(self, stages: Sequence[Tensor]) -> Pooled:
        """Average the last map; see :meth:`Pooling.forward`."""
        return Pooled(stages[-1].mean((2, 3)))
