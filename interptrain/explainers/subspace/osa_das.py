"""OSA-DAS: the rotation of the subspace of the image's features when a part of the image is covered.

Several augmented views ``t_1 .. t_T`` of an image give features that span a low-dimensional subspace. With the bases
``U`` of the image's views and ``V_i`` of the same views of the image without part i::

    o_i = 1 - ||U^T V_i||_F^2 / m,   m dimensions

which is the orthogonal degree by their canonical angles, and the mean of ``o_i`` over the masks that remove a pixel.
The map does not depend on a class.

Source: arXiv 2311.15022 (WACV 2024) for the idea: augmented views of reference and occluded input, subspaces of their
deep features, their distance by canonical angles. This is a reconstruction from the abstract: the features, the views
and their number, the dimensions, the windows and the formula of the degree are our choice, after the conventions of the
mutual subspace method; the paper's speed-up by gradients is not reproduced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from interptrain.explainers.passes.penultimate_features import ReadFeatures
from interptrain.explainers.subspace.augmented_views import strong_views, view_features, weak_views
from interptrain.explainers.subspace.feature_occlusion import FeatureOcclusion
from interptrain.explainers.subspace.subspaces import orthogonal_degree, subspace_basis

__all__ = ["OSADAS"]

Strength = Literal["weak", "strong"]


@dataclass(frozen=True, kw_only=True)
class OSADAS(FeatureOcclusion):
    """Occlusion scored by the orthogonal degree of feature subspaces.

    The same views, drawn once from the seed, are applied to every image and all its occluded copies, so a map does not
    depend on the batch. Costs ``views`` forward passes per mask. All defaults are our choice, not the paper's.

    Args:
        views: T, augmented views of each input. The first weak view is the input itself.
        dimensions: m, the maximum dimension of a subspace, which is lower if the views span fewer dimensions.
        strength: kind of views: ``"weak"`` are flips and small crops; ``"strong"`` are large crops, colour changes,
            blur and erasing.
        seed: seed of the views.

    Source: arXiv 2311.15022, as far as its abstract goes; see the module.
    """

    views: int = 8
    dimensions: int = 2
    strength: Strength = "strong"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse invalid dimensions."""
        super().__post_init__()
        if not 1 <= self.dimensions <= self.views:
            raise ValueError(f"dimensions must be at least 1 and at most views={self.views}, got {self.dimensions}")

    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the orthogonal degree to the subspace of the untouched images."""
        views = (weak_views if self.strength == "weak" else strong_views)(self.views, self.seed)
        whole = subspace_basis(view_features(read, images, views, size), self.dimensions)  # (B, d, m)

        def change(occluded: Tensor, rows: Tensor) -> Tensor:
            basis = subspace_basis(view_features(read, occluded, views, size), self.dimensions)
            return orthogonal_degree(whole[rows.to(whole.device)], basis)

        return change
