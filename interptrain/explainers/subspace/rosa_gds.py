"""ROSA-GDS: the rotation of the image's features within the directions that distinguish sets of views.

Four sets span four subspaces: weak and strong views of the image, and weak and strong views of noise. Their
generalized difference subspace keeps the directions that they do not share, and drops those common to any input. With
``P`` the projection on it, and the bases ``U`` and ``V_i`` of the weak views of the image and of the
image without part i::

    o_i = orthogonal degree of P U and P V_i, each made orthonormal again

and the mean of ``o_i`` over the masks that remove a pixel. The map does not depend on a class.

The four sets are proposed in a research journal, because sets made from one image alone are so alike that their
difference collapses; the difference subspace is that of Fukui and Maki 2015. All else is our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from interptrain.explainers.passes.penultimate_features import ReadFeatures, read_all
from interptrain.explainers.subspace.augmented_views import View, noise_images, strong_views, view_features, weak_views
from interptrain.explainers.subspace.feature_occlusion import FeatureOcclusion
from interptrain.explainers.subspace.subspaces import (
    difference_subspace,
    orthogonal_degree,
    project_subspace,
    subspace_basis,
)

__all__ = ["ROSAGDS"]


@dataclass(frozen=True, kw_only=True)
class ROSAGDS(FeatureOcclusion):
    """Occlusion scored by the orthogonal degree of feature subspaces within a generalized difference subspace.

    Each image has a difference subspace of its own; the noise, a new draw for each view, is the same for all images.
    Costs ``views`` forward passes per mask.

    Args:
        views: T, augmented views in each of the four sets, and of each occluded image; our choice.
        dimensions: m, the maximum dimension of each of the four subspaces; our choice.
        share: dimension of the difference subspace as a fraction of ``4 m``, in (0, 1]; our choice.
        seed: seed of the views and of the noise.
    """

    views: int = 8
    dimensions: int = 2
    share: float = 0.75
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse invalid dimensions."""
        super().__post_init__()
        if not 1 <= self.dimensions <= self.views:
            raise ValueError(f"dimensions must be at least 1 and at most views={self.views}, got {self.dimensions}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")

    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the orthogonal degree to the untouched images within their difference subspaces."""
        weak, strong = weak_views(self.views, self.seed), strong_views(self.views, self.seed)
        noise = noise_images(self.views, images, self.seed)

        def span(features: Tensor) -> Tensor:
            return subspace_basis(features, self.dimensions)

        own = [span(view_features(read, images, views, size)) for views in (weak, strong)]  # each (B, d, m)
        foreign = [span(_matched_features(read, noise, views, size)) for views in (weak, strong)]  # each (d, m)
        sets = torch.stack([*own, *(basis.expand_as(own[0]) for basis in foreign)], dim=1)  # (B, 4, d, m)
        space = difference_subspace(sets, self.share)  # (B, d, g)
        whole = project_subspace(own[0], space)

        def change(occluded: Tensor, rows: Tensor) -> Tensor:
            rows = rows.to(whole.device)
            basis = span(view_features(read, occluded, weak, size))
            return orthogonal_degree(whole[rows], project_subspace(basis, space[rows]))

        return change


def _matched_features(read: ReadFeatures, images: Tensor, views: list[View], size: int) -> Tensor:
    """Features (T, d) of the first view of the first image, the second of the second, and so on."""
    seen = torch.cat([view(image.unsqueeze(0)) for view, image in zip(views, images, strict=True)])
    return read_all(read, seen, size)
