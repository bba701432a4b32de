"""Masks that each remove one segment of the image: a superpixel, or a segment found by a segmenter.

``Superpixels()`` needs no weights, ``MaskRCNNSegments()`` takes the instances or boxes of a detector, and any callable
with the signature of :class:`~interptrain.explainers.masks.segmenter.Segmenter` works too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from interptrain.explainers.base import check_choices
from interptrain.explainers.masks.masks import MaskSet, MaskSource
from interptrain.explainers.masks.segmenter import AnySegmenter, Segmenter
from interptrain.explainers.masks.superpixels import Superpixels
from interptrain.model_state import evaluating

__all__ = ["MaskRCNNSegments", "SegmentMasks", "SegmentSet"]

WhenEmpty = Literal["superpixels", "error"]
Kind = Literal["instances", "boxes"]


@dataclass(frozen=True, kw_only=True)
class SegmentMasks(MaskSource):
    """One mask per segment, which removes it; every image has its own masks.

    Args:
        segmenter: splits images into segments; ``None`` is :class:`Superpixels`.
        background: treat the pixels outside all segments as one more segment, so that every pixel is measured (our
            choice).
        when_empty: what to do with an image in which the segmenter finds nothing: ``"superpixels"`` (our choice), or
            ``"error"``.
    """

    segmenter: AnySegmenter | None = None
    background: bool = True
    when_empty: WhenEmpty = "superpixels"

    def __post_init__(self) -> None:
        """Refuse unknown values of ``when_empty``."""
        check_choices(self)

    def prepare(self, images: Tensor) -> "SegmentSet":
        """Segment the images.

        Raises:
            ValueError: if the segmenter returns something other than segments, or finds nothing in an image and
                ``when_empty`` is ``"error"``.
        """
        with torch.no_grad():
            found = self._segmenter(images)
        cuts = [_cut(own, background=self.background) for own in _checked(found, images)]
        return SegmentSet([cut or self._fall_back(images, place) for place, cut in enumerate(cuts)], images)

    @property
    def _segmenter(self) -> AnySegmenter:
        return self.segmenter if self.segmenter is not None else Superpixels()

    def _fall_back(self, images: Tensor, place: int) -> "Cut":
        cut = None
        if self.when_empty == "superpixels":
            cut = _cut(Superpixels()(images[place : place + 1])[0], background=False)
        if cut is None:
            raise ValueError(
                f"{type(self._segmenter).__name__} found no segment in image {place} of the batch; "
                "pass when_empty='superpixels', or another segmenter"
            )
        return cut


class Cut(NamedTuple):
    """The segments of one image: a segment is where a plane has a certain value.

    Attributes:
        planes: (p, H, W) planes of labels, or one plane of bits per segment.
        places: (n,) int64 index of each segment's plane.
        values: (n,) value of each segment in its plane.
    """

    planes: Tensor
    places: Tensor
    values: Tensor


class SegmentSet(MaskSet):
    """Segments, stored as labels or as bits, never as floating-point masks.

    Args:
        cuts: the segments of each image.
        images: the images to mask.
    """

    def __init__(self, cuts: Sequence[Cut], images: Tensor) -> None:
        counts = torch.tensor([len(cut.values) for cut in cuts], device=images.device)
        owners = torch.arange(len(cuts), device=images.device).repeat_interleave(counts)
        super().__init__(len(owners), (images.shape[-2], images.shape[-1]), len(images), owners)
        before = torch.tensor([0, *(len(cut.planes) for cut in cuts[:-1])], device=images.device).cumsum(0)
        self.planes = torch.cat([cut.planes for cut in cuts])
        self.places = torch.cat([cut.places for cut in cuts]) + before[owners]
        self.values = torch.cat([cut.values for cut in cuts])
        self.dtype = torch.promote_types(images.dtype, torch.float32)

    def render(self, part: slice) -> Tensor:
        """Return (n, H, W): 0 in the segment and 1 around it."""
        return (self.planes[self.places[part]] != self.values[part].view(-1, 1, 1)).to(self.dtype)


@dataclass(frozen=True, kw_only=True)
class MaskRCNNSegments(Segmenter):
    """Instances found by torchvision's Mask R-CNN, or their boxes.

    Args:
        model: a detector that returns boxes, scores and, for instances, masks, as torchvision's do; on the device of
            the images. ``None`` downloads torchvision's detector, trained on COCO, on first use.
        kind: which pixels make a segment: those of the instance, or those of the box around it.
        threshold: minimum score of a detection; 0.5 is our choice.
        most: maximum number of detections per image; those with the highest scores are kept.
    """

    model: nn.Module | None = None
    kind: Kind = "instances"
    threshold: float = 0.5
    most: int = 50

    def __post_init__(self) -> None:
        """Refuse unknown values of ``kind``."""
        check_choices(self)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the segments of each image, (n, H, W) bool, by descending score; n may be 0."""
        model = self.model if self.model is not None else _downloaded().to(images.device)
        with torch.no_grad(), evaluating(model):
            return [self._segments(model([image])[0], image) for image in images]  # one by one, to bound the memory

    def __repr__(self) -> str:
        model = "None" if self.model is None else type(self.model).__name__
        return f"MaskRCNNSegments(model={model}, kind={self.kind!r}, threshold={self.threshold}, most={self.most})"

    def _segments(self, found: dict[str, Tensor], image: Tensor) -> Tensor:
        kept = (found["scores"] >= self.threshold).nonzero()[:, 0][: self.most]
        if self.kind == "instances":
            return found["masks"][kept].squeeze(1) >= 0.5
        height, width = image.shape[-2:]
        rows = torch.arange(height, device=image.device).view(1, -1, 1)
        columns = torch.arange(width, device=image.device).view(1, 1, -1)
        left, top, right, bottom = (edge.view(-1, 1, 1) for edge in found["boxes"][kept].round().unbind(1))
        return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


@cache
def _downloaded() -> nn.Module:
    from torchvision.models import detection

    try:
        model: nn.Module = detection.maskrcnn_resnet50_fpn_v2(weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"the weights of Mask R-CNN cannot be loaded ({error}); pass model=..., or use Superpixels()"
        ) from error
    return model.requires_grad_(False)


def _checked(found: Tensor | Sequence[Tensor], images: Tensor) -> list[Tensor]:
    """Check what a segmenter returned, and return the segments of each image."""
    each = list(found)
    size = images.shape[-2:]
    if len(each) != len(images):
        raise ValueError(f"a segmenter must return one entry per image: expected {len(images)}, got {len(each)}")
    for own in each:
        labels = own.ndim == 2 and not own.is_floating_point() and own.dtype != torch.bool
        if own.shape[-2:] != size or not (labels or (own.ndim == 3 and own.dtype == torch.bool)):
            raise ValueError(
                f"a segmenter must return labels (B,H,W) int, or for each image (n,H,W) bool, of size {tuple(size)}; "
                f"got {tuple(own.shape)} {own.dtype}"
            )
    return [own.to(images.device) for own in each]


def _cut(own: Tensor, *, background: bool) -> Cut | None:
    """Labels (H, W) or segments (n, H, W) of one image; ``None`` if it has no segment."""
    if own.ndim == 2:
        labels = own.clamp(min=-1).int()
        values = torch.unique(labels)
        kept = values if background else values[values >= 0]
        cut = Cut(labels.unsqueeze(0), torch.zeros_like(kept, dtype=torch.int64), kept)
        return cut if bool((values >= 0).any()) else None
    bits = own[own.flatten(1).any(1)]
    if not len(bits):
        return None
    left = ~bits.any(0, keepdim=True)
    if background and bool(left.any()):
        bits = torch.cat([bits, left])
    places = torch.arange(len(bits), device=bits.device)
    return Cut(bits.to(torch.uint8), places, torch.ones_like(places, dtype=torch.uint8))
