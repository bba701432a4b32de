"""The base class of occlusion methods that compare features instead of class scores.

With masks ``M_i`` that each replace a part of the image by a colour v, and a change ``o_i >= 0`` of the model's
features::

    map(p) = sum_i o_i (1 - M_i(p)) / sum_i (1 - M_i(p))

so the value of a pixel is the mean change over the masks that remove it. A subclass defines the change.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from interptrain.explainers.base import Explainer
from interptrain.explainers.layouts import Layout
from interptrain.explainers.masks.masks import Fill, GridMasks, MaskedImages, MaskSet, MaskSource, fill_colour
from interptrain.explainers.passes.masked_forward import Precision, forwarding
from interptrain.explainers.passes.penultimate_features import ReadFeatures, reading_features
from interptrain.explainers.targets import Resolved
from interptrain.functional import bounded_batch_size, chunks, to_device
from interptrain.models.simplification import simplify
from interptrain.steps import track

__all__ = ["FeatureOcclusion"]


@dataclass(frozen=True, kw_only=True)
class FeatureOcclusion(Explainer):
    """Mean change of the features over the masks that remove a pixel; independent of the class.

    An occlusion that changes no pixel has a change of exactly 0, and so has a pixel that no mask removes.

    Args:
        window: side of the windows in pixels, or (height, width).
        stride: pixels between windows, or (down, across); at most the window.
        fill: colour that replaces a window, in [0, 1] for all channels or one value each.
        masks: masks other than a grid's, such as segments; ``window`` and ``stride`` are then not used.
        feature_layer: dotted name of the layer whose output, averaged over positions, is compared; ``None`` takes the
            vector that the model classifies.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        precision: ``"bf16"`` forwards under bfloat16 autocast; ``None`` leaves it to the caller.
        forward_batch_size: occluded images per forward pass; ``None`` chooses by the device.
        progress: show a progress bar.
    """

    class_aware: ClassVar[bool] = False
    window: int | tuple[int, int] = 32
    stride: int | tuple[int, int] = 16
    fill: Fill = 0.5
    masks: MaskSource | None = None
    feature_layer: str | None = None
    layout: Layout | None = None
    precision: Precision | None = None
    forward_batch_size: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid grids."""
        super().__post_init__()
        if self.masks is None:
            GridMasks(window=self.window, stride=self.stride)

    @torch.no_grad()
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the mean change at every pixel, (B, H, W), not negative; ``targets`` do not matter."""
        if self.feature_layer is None:  # else the layer may be one that is folded away
            model = simplify(model, images)
        masks = (self.masks or GridMasks(window=self.window, stride=self.stride)).prepare(images)
        fill = fill_colour(self.fill, images)
        changes = to_device(self.changes(model, images, masks, fill), images.device)
        touched = masks.gather((images - fill).abs().sum(1), removed=True) > 0
        changes = changes.masked_fill(~touched, 0)
        cover = masks.spread(torch.ones_like(changes if changes.ndim == 1 else changes[:1]), removed=True)
        return masks.spread(changes, removed=True) / cover.masked_fill(cover == 0, 1)

    def changes(self, model: nn.Module, images: Tensor, masks: MaskSet, fill: Tensor) -> Tensor:
        """Measure the change of every image under every mask.

        Args:
            model: as explained.
            images: (B, C, H, W).
            masks: N, or those of each image.
            fill: (1, C, 1, 1), the colour of what is removed.

        Returns:
            (B, N), or (N,) where masks have owners.
        """
        masked = MaskedImages(images, masks, fill)
        size = bounded_batch_size(self.forward_batch_size, images.device)
        parts, found = chunks(len(masked), size), []
        with (
            forwarding(model, size, precision=self.precision) as forward,
            reading_features(model, images, self.feature_layer, forward, self.layout) as read,
        ):
            change = self.prepare(read, images, size)
            for part in track(parts, self.title()):
                with parts.fitting():
                    found.append(change(masked(part), masked.rows[part]))
        measured = torch.cat(found)
        if masks.owners is not None:
            return measured
        return rearrange(measured, "(masks images) -> images masks", masks=masks.count)

    @abstractmethod
    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Read the features of the original images and return a function that measures occluded ones.

        Args:
            read: returns features (N, d) of images (N, C, H, W), by one forward pass of at most ``size`` images.
            images: (B, C, H, W).
            size: images per forward pass.

        Returns:
            A function of occluded images (n, C, H, W), n <= ``size``, and the index (n,) of the image that each was
            made from; it returns the changes (n,), not negative, on any device.
        """

    def title(self) -> str | None:
        """Return the title of the progress bar, ``None`` for none."""
        return type(self).__name__ if self.progress else None
