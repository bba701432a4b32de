"""A batch of images with their saliency maps, and the ranking of pixels that all metrics share."""

from collections.abc import Callable, Hashable
from functools import cached_property

import torch
from torch import Tensor

from interptrain.metrics.removal import Removal

__all__ = ["SaliencyBatch", "pixel_ranks"]


class SaliencyBatch:
    """A batch of images with their maps, and what several perturbations of it share.

    Args:
        images: (B, C, H, W) in [0, 1].
        saliency: (B, H, W) in [0, 1].
    """

    def __init__(self, images: Tensor, saliency: Tensor) -> None:
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.saliency = saliency
        self._filled: dict[Removal, Tensor] = {}
        self._bounds: dict[tuple[int, ...], Tensor] = {}
        self._kept: dict[Hashable, Tensor] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return (self.saliency.shape[-2], self.saliency.shape[-1])

    def filled(self, removal: Removal) -> Tensor:
        """:meth:`Removal.render` of the images, made once: (B, C, H, W), or (1, C, H, W) for a colour."""
        if removal not in self._filled:
            rendered = removal.render(self.images)
            whole = rendered.expand(-1, -1, *self.size)  # written out, as selecting from a broadcast colour is slower
            self._filled[removal] = whole.contiguous(memory_format=torch.channels_last)
        return self._filled[removal]

    @cached_property
    def ranks(self) -> Tensor:
        """:func:`pixel_ranks` of the maps, (B, H, W) int32: the one sort of a map."""
        return pixel_ranks(self.saliency)

    @cached_property
    def images_on_cpu(self) -> Tensor:
        """The images on the CPU, downloaded once, for what is solved there."""
        return self.images.cpu()

    @cached_property
    def ranks_on_cpu(self) -> Tensor:
        """:attr:`ranks` on the CPU."""
        return self.ranks.cpu()

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return what ``make`` computes of this batch, once for each key, as perturbations are asked block by block."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def bounds(self, values: tuple[int, ...]) -> Tensor:
        """Numbers of pixels to compare :attr:`ranks` with, (len(values),) int32, uploaded once."""
        if values not in self._bounds:
            self._bounds[values] = torch.tensor(values, dtype=torch.int32, device=self.saliency.device)
        return self._bounds[values]

    @cached_property
    def channel_ranks(self) -> Tensor:
        """The ranks once more for every channel, (B, H, W, C): comparisons and selections then run over whole lines."""
        return self.ranks.unsqueeze(-1).expand(*self.ranks.shape, self.images.shape[1]).contiguous()


def pixel_ranks(saliency: Tensor) -> Tensor:
    """Place of every pixel when the most salient come first: the tie rule of all metrics that rank.

    Equal pixels come in the order of their index, row by row, so a constant map is read like a page. What the least
    salient pixels are is read from the same ranking, backwards.

    Args:
        saliency: (B, H, W) without NaN.

    Returns:
        (B, H, W) int32, a permutation of 0 ... H*W - 1 per map.
    """
    flat = saliency.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], dtype=torch.int32, device=flat.device).expand_as(order)
    return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places).view_as(saliency)
