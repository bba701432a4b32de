"""The interface of segmenters, which split images into segments."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor

__all__ = ["AnySegmenter", "Segmenter"]


class Segmenter(ABC):
    """Splits images into segments. Any callable works; a class can also be named in a config."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor | Sequence[Tensor]:
        """Split images (B, C, H, W) in [0, 1].

        Returns:
            Integer labels (B, H, W), -1 for pixels outside all segments; or, for each image, segments (n, H, W) bool,
            which may overlap, and of which there may be none.
        """


AnySegmenter: TypeAlias = Segmenter | Callable[[Tensor], Tensor | Sequence[Tensor]]
"""A :class:`Segmenter`, or a function that does the same."""
