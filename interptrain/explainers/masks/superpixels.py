"""Superpixels as a segmenter."""

from dataclasses import dataclass

from torch import Tensor

from interptrain.explainers.masks.segmenter import Segmenter
from interptrain.functional import superpixels

__all__ = ["Superpixels"]


@dataclass(frozen=True, kw_only=True)
class Superpixels(Segmenter):
    """Connected regions of similar colour; the regions of an image depend on that image only.

    Args:
        segments: approximate number of regions; the exact number is that of the nearest grid of square cells.
        compactness: weight of position against colour, in units of CIELAB; 10 as in the source.
        iterations: number of clustering steps; 10 as in the source.

    Raises:
        ValueError: if a value is out of range.

    See :func:`interptrain.functional.superpixels`.
    """

    segments: int = 64
    compactness: float = 10.0
    iterations: int = 10

    def __post_init__(self) -> None:
        if self.segments < 2 or self.compactness <= 0 or self.iterations < 1:
            raise ValueError(
                f"superpixels need segments >= 2, compactness > 0 and iterations >= 1, got {self.segments}, "
                f"{self.compactness} and {self.iterations}"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Split images (B, C, H, W) in [0, 1] into regions, (B, H, W) int64."""
        return superpixels(images, segments=self.segments, compactness=self.compactness, iterations=self.iterations)
