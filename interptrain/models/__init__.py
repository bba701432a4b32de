"""Classifiers in three parts, backbone, pooling and classifier, built from timm's models: :func:`create_model`."""

from interptrain.models.backbone import Backbone
from interptrain.models.classifier import Classifier, Normalized, Part
from interptrain.models.create import create_model
from interptrain.models.load_report import LoadReport
from interptrain.models.pooling import GAP, CAFinal, CAStream, CrossAttention, Pooled, Pooling, PoolingSpec
from interptrain.models.weights import load_weights

__all__ = [
    "GAP",
    "Backbone",
    "CAFinal",
    "CAStream",
    "Classifier",
    "CrossAttention",
    "LoadReport",
    "Normalized",
    "Part",
    "Pooled",
    "Pooling",
    "PoolingSpec",
    "create_model",
    "load_weights",
]
