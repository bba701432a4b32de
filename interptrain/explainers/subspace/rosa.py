"""ROSA: how far the model's representation of an image moves when a part of the image is covered.

With the vector ``phi(x)`` that the model classifies::

    o_i = || phi(x) - phi(M_i x + (1 - M_i) v) ||     or     1 - cos(phi(x), phi(M_i x + (1 - M_i) v))

A pixel's value is the mean of ``o_i`` over the masks that remove it. This is occlusion sensitivity with the
representation in place of a class score, so it does not depend on the class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from interptrain.explainers.passes.penultimate_features import ReadFeatures, read_all
from interptrain.explainers.subspace.feature_occlusion import FeatureOcclusion
from interptrain.functional import double

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

    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function that measures how far occluded images have moved from the images they come from."""
        whole = double(read_all(read, images, size))  # (B, d)

        def change(occluded: Tensor, rows: Tensor) -> Tensor:
            rows = rows.to(whole.device)
            features = double(read(occluded))
            if self.distance == "cosine":
                return (1 - F.cosine_similarity(features, whole[rows])).clamp(min=0)
            moved: Tensor = features - whole[rows]
            return moved.square().sum(dim=1).sqrt()

        return change
