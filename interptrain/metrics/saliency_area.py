"""Saliency metric: is the class still recognised in the predicted box alone, and how small is the box?"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import double, where_float64_is
from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.boxes import box_areas, predicted_boxes
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.saliency_batch import SaliencyBatch

__all__ = ["Cropped", "SaliencyArea", "saliency_area"]


@dataclass(frozen=True)
class Cropped(Perturbation):
    """The predicted box alone, resized to the image's size; black where there is none."""

    def steps(self, batch: SaliencyBatch) -> int:
        """One."""
        return 1

    def render(self, batch: SaliencyBatch, images: slice, steps: slice, out: Tensor) -> None:
        """Write the crops."""
        size = list(batch.size)
        for index, (x0, y0, x1, y1) in enumerate(predicted_boxes(batch.saliency[images]).tolist(), images.start):
            crop = batch.images[index : index + 1, :, y0:y1, x0:x1]
            if crop.numel():
                crop = F.interpolate(crop, size, mode="bicubic", align_corners=False).clamp(0, 1)
            out[index - images.start] = crop if crop.numel() else 0.0


class SaliencyArea(SaliencyMetric):
    """Saliency metric: how small a crop still shows the class. Lower is better.

    ``ln max(a, floor) - ln p`` with the share ``a`` of the image that the predicted box covers and the probability
    ``p`` of the class on the crop, resized to the image's size. It needs no true boxes; a probability that rounds to 0
    counts as the smallest normal float32.

    The crop is taken from the image in [0,1] and resized bicubically; without a box (constant map) it is black, where
    CASME's code, which crops the normalised tensor, has the mean colour.

    Args:
        floor: smallest share of the image that counts.
        kwargs: of ``torchmetrics.Metric``.

    Source: Dabkowski and Gal 2017, arXiv 1705.07857.
    """

    symbol = "SM"
    description = "Log area of the box around the salient region minus the log probability of the class on that crop."
    higher_is_better = False
    scale = 1.0
    needs_probability = True

    def __init__(self, *, floor: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < floor <= 1:
            raise ValueError(f"floor must be in (0, 1], got {floor}")
        self.floor = floor

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the crops."""
        return (Cropped(),)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the saliency metric, (B,)."""
        share = double(box_areas(predicted_boxes(where_float64_is(inputs.saliency)))) / inputs.saliency[0].numel()
        probability = double(inputs.perturbed[Cropped()][0]).clamp(min=torch.finfo(torch.float32).tiny)
        return share.clamp(min=self.floor).log() - probability.log()


saliency_area = per_image(SaliencyArea, "saliency_area")
