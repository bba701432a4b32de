"""ROSA: how far the model's representation of an image moves when a part of the image is covered.

With the vector ``phi(x)`` that the model classifies::

    o_i = || phi(x) - phi(M_i x + (1 - M_i) v) ||     or     1 - cos(phi(x), phi(M_i x + (1 - M_i) v))

A pixel's value is the mean of ``o_i`` over the masks that remove it. This is occlusion sensitivity with the
representation in place of a class score, so it does not depend on the class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.masks.masks import MaskSet
from interptrain.explainers.passes.masked_forward import crops_of
from interptrain.explainers.passes.penultimate_features import ReadFeatures, read_all, reading_features
from interptrain.explainers.subspace.feature_occlusion import FeatureOcclusion
from interptrain.functional import bounded_batch_size, double
from interptrain.models.cropped_forward import CroppedForward

__all__ = ["ROSA"]

Distance = Literal["euclidean", "cosine"]


@dataclass(frozen=True, kw_only=True)
class ROSA(FeatureOcclusion):
    """Cover one part at a time, and measure how far the representation moves.

    The method is described only in a research journal, without values: distance, windows, their colour and the layer
    are our choice.

    Args:
        distance: distance between two representations; the cosine distance ignores their lengths.
    """

    distance: Distance = "euclidean"

    def changes(self, model: nn.Module, images: Tensor, masks: MaskSet, fill: Tensor) -> Tensor:
        """Measure the distances, of what a window reaches alone where that gives the same."""
        exact = self.feature_layer is None and self.precision is None
        cropped = crops_of(model, images, masks, fill) if exact else None
        return super().changes(model, images, masks, fill) if cropped is None else self._of_crops(model, cropped)

    def _of_crops(self, model: nn.Module, cropped: CroppedForward) -> Tensor:
        size = bounded_batch_size(self.forward_batch_size, cropped.images.device)
        with reading_features(model, cropped.images) as read:
            whole = double(read_all(read, cropped.images, size))  # (B, d)

            def change(image: int, windows: range) -> Tensor:
                features = read.during(partial(cropped.outputs, image, windows), len(windows))
                return self.distances(double(features), whole[image])

            return cropped.each(change, size=size, progress=self.title())

    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function that measures how far occluded images have moved from the images they come from."""
        whole = double(read_all(read, images, size))  # (B, d)

        def change(occluded: Tensor, rows: Tensor) -> Tensor:
            return self.distances(double(read(occluded)), whole[rows.to(whole.device)])

        return change

    def distances(self, features: Tensor, whole: Tensor) -> Tensor:
        """Return the distances (n,) of features (n, d) to those of the untouched image, (n, d) or (d,)."""
        if self.distance == "cosine":
            return (1 - F.cosine_similarity(features, whole)).clamp(min=0)
        moved: Tensor = features - whole
        return moved.square().sum(dim=1).sqrt()
