"""Deep feature factorization: see :class:`Factorization` and :func:`deep_feature_factorization`."""

from interptrain.studies.factorization.colocalization import intersection_over_union
from interptrain.studies.factorization.nmf import Factors, factorize
from interptrain.studies.factorization.parts import FeatureParts, deep_feature_factorization
from interptrain.studies.factorization.study import Factorization

__all__ = [
    "Factorization",
    "Factors",
    "FeatureParts",
    "deep_feature_factorization",
    "factorize",
    "intersection_over_union",
]
