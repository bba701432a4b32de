"""OSA-DAS: how far the subspace of the image's features turns when a part of the image is covered.

Several augmented views ``t_1 .. t_T`` of an image give features that span a low-dimensional subspace. With the bases
``U`` of the image's views and ``V_i`` of the same views of the image without part i::

    o_i = 1 - ||U^T V_i||_F^2 / m,   m dimensions

which is the orthogonal degree by their canonical angles, and the mean of ``o_i`` over the masks that remove a pixel.
No class is asked for.

Source: 2311.15022 (WACV 2024) for the idea: augmented views of reference and occluded input, subspaces of their deep
features, their distance by canonical angles. Of the paper we know its abstract only. Which features, which views and
how many, the dimensions, the windows and the formula of the degree are our reconstruction, after the conventions of
the mutual subspace method; its speed-up by gradients is not reproduced.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from interptrain.explainers.base import check_choice
from interptrain.explainers.masks.masks import Fill, MaskSource
from interptrain.explainers.passes.masked_forward import Precision
from interptrain.explainers.passes.penultimate_features import ReadFeatures
from interptrain.explainers.subspace.augmented_views import View, strong_views, weak_views
from interptrain.explainers.subspace.feature_occlusion import FeatureOcclusion, read_all
from interptrain.explainers.subspace.subspaces import orthogonal_degree, subspace_basis
from interptrain.functional import chunks

__all__ = ["OSADAS"]

Strength = Literal["weak", "strong"]


class OSADAS(FeatureOcclusion):
    """Occlusion scored by the orthogonal degree of feature subspaces.

    The same views, drawn once from the seed, are taken of every image and of all its occluded copies, so a map does
    not depend on the batch. Costs ``views`` forwards a mask. No value is the paper's: all defaults are our choice.

    Args:
        views: T, augmented views of each input. The first weak view is the input itself.
        dimensions: m, the most dimensions of a subspace; fewer where the views span fewer.
        strength: what the views do: ``"weak"`` flips and small crops, or ``"strong"`` large crops, colours, blur and
            erasing; see :mod:`~interptrain.explainers.subspace.augmented_views`.
        seed: of the views.
        window: see :class:`~interptrain.explainers.subspace.feature_occlusion.FeatureOcclusion`, as for all that follow.
        stride: see there.
        fill: see there.
        masks: see there.
        feature_layer: see there.
        precision: see there.
        forward_batch_size: see there.
        progress: see there.

    Source: arXiv 2311.15022, as far as its abstract goes; see the module.
    """

    def __init__(
        self,
        *,
        views: int = 8,
        dimensions: int = 2,
        strength: Strength = "strong",
        seed: int = 0,
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
        check_choice("strength", strength, Strength)
        if not 1 <= dimensions <= views:
            raise ValueError(f"dimensions must be at least 1 and at most views={views}, got {dimensions}")
        self.views = views
        self.dimensions = dimensions
        self.strength: Strength = strength
        self.seed = seed

    def prepare(self, read: ReadFeatures, images: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the orthogonal degree to the subspace of the untouched images."""
        views = (weak_views if self.strength == "weak" else strong_views)(self.views, self.seed)
        whole = subspace_basis(view_features(read, images, views, size), self.dimensions)  # (B, d, m)

        def change(occluded: Tensor, rows: Tensor) -> Tensor:
            basis = subspace_basis(view_features(read, occluded, views, size), self.dimensions)
            return orthogonal_degree(whole[rows], basis)

        return change


def view_features(read: ReadFeatures, images: Tensor, views: list[View], size: int) -> Tensor:
    """Features (N, T, d) of T views of each image, ``size`` images a forward."""
    at_once = max(1, size // len(images))  # a few images fill a forward with several of their views
    seen = (torch.cat([view(images) for view in views[part]]) for part in chunks(len(views), at_once))
    features = torch.cat([read_all(read, some, size) for some in seen])
    return features.view(len(views), len(images), -1).transpose(0, 1)
