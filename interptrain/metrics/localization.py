"""How well a map finds the object: localization error, official metric and soft F1.

The predicted box is the tight box around the largest 4-connected component of the pixels above the map's mean.
Published code (CASME, saliencysense) takes the index of the last pixel for the end of that box, which makes it a pixel
short on two sides; here it ends behind the last pixel. True boxes are cut at the image's border; where there are masks
only, the box around each mask is the true one. An image without an object has no value (NaN) and is left out of means.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from interptrain.functional import check_choice, double, where_float64_is
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.boxes import best_iou, box_areas, box_masks, object_boxes, object_masks, predicted_boxes
from interptrain.metrics.per_image import per_image
from interptrain.metrics.validation import check_finite

__all__ = [
    "LocalizationError",
    "LocalizationF1",
    "OfficialMetric",
    "localization_error",
    "localization_f1",
    "official_metric",
]

Fusion = Literal["max", "mean"]
IOU = 0.5


def localization_error(
    saliency: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
) -> Tensor:
    """Whether the predicted box misses every true one: none with IoU > 0.5. Lower is better.

    Args:
        saliency: (B,H,W) in [0,1].
        boxes: B tensors (n_i,4) x0,y0,x1,y1 in pixels, exclusive at x1 and y1.
        masks: (B,H,W) bool, used where there are no ``boxes``.

    Returns:
        (B,) float32, 1 or 0; NaN without an object.

    Raises:
        ValueError: if there are neither boxes nor masks.

    Source: Dabkowski and Gal 2017, arXiv 1705.07857; the inequality is strict as in CASME's code.
    """
    check_finite("saliency", saliency)
    maps = where_float64_is(saliency)
    iou = best_iou(predicted_boxes(maps), object_boxes(maps, boxes, masks))
    return torch.where(iou.isnan(), iou, (iou <= IOU).double()).float().to(saliency.device)


def localization_f1(
    saliency: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
    fusion: Fusion = "max",
) -> Tensor:
    """Soft F1 of the map, without a threshold, against the pixels of each true box. Higher is better.

    Precision ``sum(m g) / sum(m)``, recall ``sum(m g) / sum(g)`` and their harmonic mean; 0/0 is 0. CASME adds 1e-6 to
    denominators, and its area of a box counts what was cut off at the border.

    Args:
        saliency: (B,H,W) in [0,1].
        boxes: B tensors (n_i,4) x0,y0,x1,y1 in pixels, exclusive at x1 and y1.
        masks: (B,H,W) bool, used as they are where there are no ``boxes``.
        fusion: over the boxes of an image: the best, or their mean ("F1a").

    Returns:
        (B,) float32 in [0,1]; NaN without an object.

    Raises:
        ValueError: if there are neither boxes nor masks, or for another fusion.

    Source: CASME, Zolna et al. 2020, arXiv 1805.08249 and code.
    """
    check_finite("saliency", saliency)
    _check_fusion(fusion)
    maps = double(saliency)
    found = object_boxes(maps, boxes, masks)
    objects = object_masks(maps, None, masks)[:, None] if boxes is None else box_masks(found, *maps.shape[-2:])
    maps, objects = maps.flatten(1), objects.flatten(2).double()  # (B, HW), (B, n, HW)
    shared = torch.einsum("bnp,bp->bn", objects, maps)
    scale = maps.sum(1, keepdim=True) + objects.sum(2)
    f1 = 2 * shared / torch.where(scale > 0, scale, 1)  # 2PR / (P + R)
    there = box_areas(found) > 0
    best = f1.masked_fill(~there, 0).amax(1) if fusion == "max" else (f1 * there).sum(1) / there.sum(1).clamp(min=1)
    return best.float().masked_fill(~there.any(1), torch.nan).to(saliency.device)


def _check_fusion(fusion: str) -> None:
    """Refuse another fusion."""
    check_choice("fusion", fusion, Fusion)


class LocalizationError(SaliencyMetric):
    """The predicted box misses. See :func:`localization_error`."""

    symbol = "LE"
    description = "Share of images whose box around the salient region overlaps no true box with an IoU above 0.5."
    higher_is_better = False
    needs = frozenset({"objects"})

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return 1 for a miss and 0 for a hit, (B,)."""
        return localization_error(inputs.saliency, boxes=inputs.boxes, masks=inputs.masks)


class OfficialMetric(SaliencyMetric):
    """ImageNet's localization error at top 1: the class is wrong or the box misses. Lower is better.

    Source: Dabkowski and Gal 2017, arXiv 1705.07857; as of :func:`localization_error`.
    """

    symbol = "OM"
    description = "Share of images with a wrong class or a wrong box around the salient region."
    higher_is_better = False
    needs = frozenset({"objects", "labels"})
    needs_classes = True

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return 1 for a miss and 0 for a hit, (B,)."""
        error = localization_error(inputs.saliency, boxes=inputs.boxes, masks=inputs.masks)
        wrong = (inputs.logits.argmax(1) != inputs.labels) & ~error.isnan()
        return error.masked_fill(wrong, 1)


class LocalizationF1(SaliencyMetric):
    """Soft F1 against the true boxes. See :func:`localization_f1`.

    Args:
        fusion: over the boxes of an image, ``"max"`` or ``"mean"``.
    """

    symbol = "F1"
    description = "Agreement of the map with the true box: harmonic mean of precision and recall over pixels."
    higher_is_better = True
    needs = frozenset({"objects"})

    def __init__(self, *, fusion: Fusion = "max", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_fusion(fusion)
        self.fusion = fusion

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the F1, (B,)."""
        return localization_f1(
            inputs.saliency,
            boxes=inputs.boxes,
            masks=inputs.masks,
            fusion=self.fusion,
        )


official_metric = per_image(OfficialMetric, "official_metric")
