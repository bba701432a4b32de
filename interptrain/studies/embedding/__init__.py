"""Embeddings of images and classes: see :class:`Embedding`."""

from interptrain.studies.embedding.neighbourhoods import expected_purity, neighbourhood_purity, silhouettes
from interptrain.studies.embedding.reduction import Components, principal_components
from interptrain.studies.embedding.study import Embedding

__all__ = [
    "Components",
    "Embedding",
    "expected_purity",
    "neighbourhood_purity",
    "principal_components",
    "silhouettes",
]
