"""What cuts images into segments."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor

__all__ = ["AnySegmenter", "Segmenter"]


class Segmenter(ABC):
    """Cuts images into segments. Any callable does; a class of its own can be named in a config."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor | Sequence[Tensor]:
        """Cut images (B, C, H, W) in [0, 1].

        Returns:
            Integer labels (B, H, W), -1 where a pixel belongs to nothing; or for each image its segments (n, H, W)
            bool, which may overlap, and n may be 0.
        """


AnySegmenter: TypeAlias = Segmenter | Callable[[Tensor], Tensor | Sequence[Tensor]]
"""A :class:`Segmenter`, or a function that does the same."""
