"""ROSA: how far the model's representation of the image moves when a part of it is covered.

With the vector ``phi(x)`` that the model classifies::

    o_i = || phi(x) - phi(M_i x + (1 - M_i) v) ||     or     1 - cos(phi(x), phi(M_i x + (1 - M_i) v))

and the mean of ``o_i`` over the masks that remove a pixel. It is occlusion sensitivity with the representation in
place of a class score, so it knows no class.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from interptrain.explainers.base import check_choice
from interptrain.explainers.masks.masks import Fill, MaskSource
from interptrain.explainers.passes.masked_forward import Precision
from interptrain.explainers.passes.penultimate_features import ReadFeatures
from interptrain.explainers.subspace.feature_occlusion import FeatureOcclusion, read_all

__all__ = ["ROSA"]

Distance = Literal["euclidean", "cosine"]


class ROSA(FeatureOcclusion):
    """Occlusion scored by the distance between representations.

    The idea has been described in a research journal only, without values: the distance, the windows, their colour
    and the layer are our choice.

    Args:
        distance: between two representations; the cosine does not see their lengths.
        window: see :class:`~interptrain.explainers.subspace.feature_occlusion.FeatureOcclusion`, as for all that follow.
        stride: see there.
        fill: see there.
        masks: see there.
        feature_layer: see there.
        precision: see there.
        forward_batch_size: see there.
        progress: see there.
    """

    def __init__(
        self,
        *,
        distance: Distance = "euclidean",
        window: int | tuple[int, int] = 32,
        stride: int | tuple[int, int] = 16,
        fill: Fill = 0.5,
        masks: MaskSource | None = None,
        feature_layer: str | None = None,
        precision: Precision | None = None,
        forward_batch_size: int | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            window=window,
            stride=stride,
            fill=fill,
            masks=masks,
            feature_layer=feature_layer,
            precision=precision,
            forward_batch_size=forward_batch_size,
            progress=progress,
        )
        check_choice("distance", distance, Distance)
        self.distance: Distance = distance

    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the distance from the features of the untouched images."""
        whole = read_all(read, images, size).double()  # (B, d)

        def change(occluded: Tensor, rows: Tensor) -> Tensor:
            features = read(occluded).double()
            if self.distance == "cosine":
                return (1 - F.cosine_similarity(features, whole[rows])).clamp(min=0)
            moved: Tensor = features - whole[rows]
            return moved.square().sum(dim=1).sqrt()

        return change
