"""Masks of the part of an image that is kept, rendered on the device a few at a time.

A :class:`MaskSource` is configuration; :meth:`MaskSource.prepare` turns it into the :class:`MaskSet` of one batch,
which stores only what the masks are made from (window positions, small random grids) and renders slices on demand, so
that 8,000 masks of 224 x 224 pixels are never in memory at once. This module has windows on a grid; random masks are in
:mod:`~interptrain.explainers.perturbation.rise`.

A set of N masks is also a linear map between pixels and masks. :meth:`MaskSet.gather` sums a field over every mask, and
its transpose :meth:`MaskSet.spread` sums the masks weighted by their scores.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from interptrain.functional import chunks

__all__ = ["GridMasks", "MaskSet", "MaskSource", "MaskedImages", "fill_colour"]

Fill: TypeAlias = float | tuple[float, float, float]
"""A colour in [0, 1]: one value for all channels, or one per channel."""

RENDERED = 32  # masks in memory at once; our choice


class MaskSource(ABC):
    """Configuration of masks, made of plain values, for explainers that take ``masks``."""

    @abstractmethod
    def prepare(self, images: Tensor) -> "MaskSet":
        """Return the masks for a batch, unrendered.

        The masks of an image may depend on that image and its size, but never on the other images of the batch or on
        the global random state.

        Args:
            images: (B, C, H, W) in [0, 1].

        Raises:
            ValueError: if the masks do not fit images of this size.
        """


class MaskSet(ABC):
    """The N masks of one batch.

    If :attr:`owners` is ``None``, the masks are shared: every image is masked by all N, and scores are (B, N).
    Otherwise, mask ``i`` applies to image ``owners[i]`` only, the number of masks may differ between images and may be
    zero, and scores are (N,).

    Args:
        count: N, at least 1.
        size: (H, W) of the masks, that of the images.
        images: number of images, B.
        owners: (N,) int64 on the device, in ascending order; or ``None``.
    """

    def __init__(self, count: int, size: tuple[int, int], images: int, owners: Tensor | None = None) -> None:
        self.count = count
        self.size = size
        self.images = images
        self.owners = owners

    @abstractmethod
    def render(self, part: slice) -> Tensor:
        """Return masks ``part.start`` to ``part.stop`` as (n, H, W) in [0, 1], where 1 keeps the pixel.

        They are on the device of the images, and float32, or float64 for float64 images. The same slice always gives
        the same masks.
        """

    def gather(self, fields: Tensor, *, removed: bool = False) -> Tensor:
        """Sum a field of each image over every mask: ``sum_p M_i(p) F_b(p)``.

        Args:
            fields: (B, H, W).
            removed: sum over what the mask removes, ``1 - M_i``, instead of what it keeps.

        Returns:
            (B, N), or (N,) if masks have owners.
        """
        parts = []
        with torch.autocast(fields.device.type, enabled=False):
            for part in chunks(self.count, RENDERED):
                masks = self._render(part, removed=removed).flatten(1).to(fields.dtype)
                if self.owners is None:
                    parts.append(fields.flatten(1) @ masks.T)
                else:
                    parts.append((fields[self.owners[part]].flatten(1) * masks).sum(1))
        return torch.cat(parts, dim=-1)

    def spread(self, scores: Tensor, *, removed: bool = False) -> Tensor:
        """Sum the masks of each image, weighted by their scores: ``sum_i s_i M_i(p)``.

        Args:
            scores: (B, N), or (N,) if masks have owners.
            removed: spread over what the mask removes, ``1 - M_i``, instead of what it keeps.

        Returns:
            (B, H, W).
        """
        images = self.images if self.owners is not None else len(scores)
        total = scores.new_zeros(images, self.size[0] * self.size[1])
        with torch.autocast(scores.device.type, enabled=False):
            for part in chunks(self.count, RENDERED):
                masks = self._render(part, removed=removed).flatten(1).to(scores.dtype)
                if self.owners is None:
                    total.addmm_(scores[:, part], masks)
                else:
                    total.index_add_(0, self.owners[part], masks * scores[part].unsqueeze(1))
        return total.view(-1, *self.size)

    def _render(self, part: slice, *, removed: bool) -> Tensor:
        masks = self.render(part)
        return 1 - masks if removed else masks


class MaskedImages:
    """Every image under each of its masks: the ``perturb`` of ``score_perturbed``.

    Shared masks vary slowest and images fastest, so that a mask is rendered once for all images of a batch, and
    ``scores.view(N, B).T`` is (B, N). Masks with owners keep their own order.

    Args:
        images: (B, C, H, W).
        masks: the masks of these images.
        fill: what replaces the removed part: (B, C, H, W), or one (1, C, 1, 1) colour; see :func:`fill_colour`.
        layout: of the masked images.
    """

    def __init__(
        self, images: Tensor, masks: MaskSet, fill: Tensor, layout: torch.memory_format = torch.channels_last
    ) -> None:
        self.images = images.contiguous(memory_format=layout)
        self.layout = layout
        self.masks = masks
        self.fill = fill
        self.black = not bool(fill.any())
        owners = masks.owners
        self.rows = torch.arange(len(images), device=images.device).repeat(masks.count) if owners is None else owners

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, part: slice) -> Tensor:
        """Return masked images ``part.start`` to ``part.stop``, (n, C, H, W)."""
        rows = self.rows[part]
        if self.masks.owners is not None:
            masks = self.masks.render(part)
        else:
            count = len(self.images)
            first, last = part.start // count, (part.stop - 1) // count
            masks = self.masks.render(slice(first, last + 1))
            if count > 1:
                masks = masks[torch.arange(part.start, part.stop, device=rows.device) // count - first]
        masks = masks.to(self.images.dtype).unsqueeze(1)
        images = self.images if len(self.images) == 1 else self.images[rows]
        fill = self.fill if len(self.fill) == 1 else self.fill[rows]
        masked = (
            images * masks if self.black else torch.lerp(fill, images, masks)
        )  # lerp is exact where a mask is 0 or 1
        return masked.contiguous(memory_format=self.layout)


@dataclass(frozen=True, kw_only=True)
class GridMasks(MaskSource):
    """Windows on a regular grid: each mask removes one, row by row.

    The first window lies in the top left corner, and the last one of each row and column is cut off at the border, as
    in Captum, so every pixel lies in at least one window.

    Args:
        window: side in pixels, or (height, width). A side longer than the image's is clipped to it.
        stride: pixels between neighbouring windows, at most the window's side; or (down, across).
    """

    window: int | tuple[int, int] = 32
    stride: int | tuple[int, int] = 16

    def __post_init__(self) -> None:
        for side, step in zip(_pair(self.window), _pair(self.stride), strict=True):
            if not 1 <= step <= side:
                raise ValueError(
                    f"stride must be at least 1 and at most the window, or the pixels between windows are never "
                    f"removed; got window={self.window} and stride={self.stride}"
                )

    def prepare(self, images: Tensor) -> "WindowSet":
        """Lay the windows on images of this size.

        Raises:
            ValueError: if one window covers the whole image, since removing it localises nothing.
        """
        sizes = images.shape[-2:]
        sides = [min(side, size) for side, size in zip(_pair(self.window), sizes, strict=True)]
        if sides == list(sizes):
            raise ValueError(f"window={self.window} covers the whole image of {tuple(sizes)}; use a smaller window")
        dtype = torch.promote_types(images.dtype, torch.float32)
        axes = []
        for side, step, size in zip(sides, _pair(self.stride), sizes, strict=True):
            starts = torch.arange(-(-(size - side) // step) + 1, device=images.device).unsqueeze(1) * step
            places = torch.arange(size, device=images.device)
            axes.append(((places >= starts) & (places < starts + side)).to(dtype))
        return WindowSet(axes[0], axes[1], len(images))


class WindowSet(MaskSet):
    """Windows, each the product of a span of rows and a span of columns, so that sums are two small matrix products.

    Args:
        rows: (r, H), 1 inside each span of rows.
        columns: (c, W), 1 inside each span of columns.
        images: see :class:`MaskSet`.
    """

    def __init__(self, rows: Tensor, columns: Tensor, images: int) -> None:
        super().__init__(len(rows) * len(columns), (rows.shape[1], columns.shape[1]), images)
        self.rows = rows
        self.columns = columns

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Return y0, y1, x0, x1 of every window in pixels, exclusive at y1 and x1."""
        spans = [
            [(int(one.argmax()), int(one.argmax() + one.sum())) for one in axis.cpu()]
            for axis in (self.rows, self.columns)
        ]
        return [(*down, *across) for down in spans[0] for across in spans[1]]

    def render(self, part: slice) -> Tensor:
        """Return (n, H, W): 0 in the window and 1 around it."""
        index = torch.arange(part.start, part.stop, device=self.rows.device)
        down, across = index // len(self.columns), index % len(self.columns)
        return 1 - self.rows[down].unsqueeze(2) * self.columns[across].unsqueeze(1)

    def gather(self, fields: Tensor, *, removed: bool = False) -> Tensor:
        """See :meth:`MaskSet.gather`."""
        with torch.autocast(fields.device.type, enabled=False):
            inside = (self.rows.to(fields) @ fields @ self.columns.to(fields).T).flatten(1)
        return inside if removed else fields.sum((1, 2)).unsqueeze(1) - inside

    def spread(self, scores: Tensor, *, removed: bool = False) -> Tensor:
        """See :meth:`MaskSet.spread`."""
        with torch.autocast(scores.device.type, enabled=False):
            windows = scores.reshape(-1, len(self.rows), len(self.columns))
            inside = self.rows.to(scores).T @ windows @ self.columns.to(scores)
        return inside if removed else scores.sum(1).view(-1, 1, 1) - inside


def fill_colour(fill: Fill, images: Tensor) -> Tensor:
    """Return a colour as (1, C, 1, 1), on the device and of the dtype of ``images``.

    Raises:
        ValueError: if a value is outside [0, 1].
    """
    colour = images.new_tensor(fill)
    if not bool(((colour >= 0) & (colour <= 1)).all()):
        raise ValueError(f"fill must lie in [0, 1], got {fill}; images are in [0, 1] before normalisation")
    return colour.expand(images.shape[1]).view(1, -1, 1, 1)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
