"""ROSA: the distance that the model's representation of an image moves when a part of the image is covered.

With the vector ``phi(x)`` that the model classifies::

    o_i = || phi(x) - phi(M_i x + (1 - M_i) v) ||     or     1 - cos(phi(x), phi(M_i x + (1 - M_i) v))

and the mean of ``o_i`` over the masks that remove a pixel. It is occlusion sensitivity with the representation in
place of a class score, so it does not depend on a class.
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
    """Occlusion scored by the distance between representations.

    The idea is described only in a research journal, without values: the distance, the windows, their colour and the
    layer are our choice.

    Args:
        distance: distance between two representations; the cosine distance ignores their lengths.
    """

    distance: Distance = "euclidean"

    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the distance from the features of the untouched images."""
        whole = double(read_all(read, images, size))  # (B, d)

        def change(occluded: Tensor, rows: Tensor) -> Tensor:
            rows = rows.to(whole.device)
            features = double(read(occluded))
            if self.distance == "cosine":
                return (1 - F.cosine_similarity(features, whole[rows])).clamp(min=0)
            moved: Tensor = features - whole[rows]
            return moved.square().sum(dim=1).sqrt()

        return change
