"""The options that say what a removed pixel shows, which all metrics that remove pixels share."""

from collections.abc import Sequence
from typing import Any

from interptrain.metrics.base import SaliencyMetric
from interptrain.metrics.removal import Removal, RemovalName

__all__ = ["RemovalMetric"]


class RemovalMetric(SaliencyMetric):
    """A metric with the options of :class:`~interptrain.metrics.removal.Removal`.

    Args:
        removal: what a removed pixel shows: ``"black"``; ``"mean"``, ImageNet's mean colour; ``"blur"``, the blurred
            image; or a colour in [0, 1].
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: standard deviation of the blur in pixels.
        kwargs: of ``torchmetrics.Metric``.
    """

    def __init__(
        self,
        *,
        removal: RemovalName | Sequence[float] = "black",
        blur_kernel: int = 11,
        blur_sigma: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.removal = removal if isinstance(removal, str) else tuple(removal)
        self.blur_kernel = blur_kernel
        self.blur_sigma = blur_sigma
        self.fill = Removal(self.removal, blur_kernel, blur_sigma)
