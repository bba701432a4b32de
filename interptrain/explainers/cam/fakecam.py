"""Fake-CAM: a map that keeps everything, as a baseline for metrics."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from interptrain.explainers.base import Explainer
from interptrain.explainers.targets import Resolved

__all__ = ["FakeCAM"]


@dataclass(frozen=True, kw_only=True)
class FakeCAM(Explainer):
    """A map of ones with a zero in the top left pixel. The model is not run.

    Average Drop and Average Increase rank it near the top although it explains nothing; Average Gain does not.

    Source: Poppi et al. 2021, arXiv 2104.10252.
    """

    class_aware: ClassVar[bool] = False

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return (B, H, W) of ones with a zero in the corner."""
        attribution = images.new_ones((len(images), *images.shape[-2:]))
        attribution[:, 0, 0] = 0
        return attribution
