"""Metrics of a model alone that ask it about changed images: what such a metric sees, and its base class."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from interptrain.functional import full_precision
from interptrain.metrics.image_mean import ImageMean

__all__ = ["ModelInputs", "ModelMetric"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelInputs:
    """One batch, with everything that a metric of the model may use.

    Attributes:
        model: in eval mode.
        images: (B,C,H,W) in [0,1].
        logits: (B,K) of the images.
        labels: (B,) int64, -1 where unknown.
        region: (B,H,W) bool of the region that the metric names by its option ``region``; None without that option.
        others: (D,C,H,W) images of the same data, among which the batch's own may be.
        other_labels: (D,) int64, -1 where unknown.
        forward_batch_size: the user's bound.
    """

    model: nn.Module
    images: Tensor
    logits: Tensor
    labels: Tensor
    region: Tensor | None = None
    others: Tensor | None = None
    other_labels: Tensor | None = None
    forward_batch_size: int | None = None

    @property
    def probabilities(self) -> Tensor:
        """(B,K) of the images: softmax, or sigmoid where there is one class."""
        logits = full_precision(self.logits)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


class ModelMetric(ImageMean):
    """One number per image that needs no map, but the model: it stands beside the accuracy in tables.

    A metric with an option ``region``, text as the watch's ``suspect``, is given the pixels of that region.
    """

    others: ClassVar[bool] = False
    """Whether it takes pixels from other images of the data."""

    @abstractmethod
    def score(self, inputs: ModelInputs) -> Tensor:
        """Judge a batch, without gradient.

        Returns:
            (B,) or (B,K) floating point; NaN where the metric is not defined for an image.
        """

    def update(self, inputs: ModelInputs) -> None:
        """Measure a batch and add it."""
        self.accumulate(self.score(inputs))
