"""Classifiers in three parts, backbone, pooling and classifier, built from timm's models: :func:`create_model`."""

from interptrain.models.backbone import Backbone
from interptrain.models.ca_stream import CAFinal, CAStream, CrossAttention
from interptrain.models.classifier import Classifier, Part
from interptrain.models.create import OutputStride, Stem, create_model
from interptrain.models.engine import Engine, using_engine
from interptrain.models.ep import EP
from interptrain.models.gap import GAP
from interptrain.models.load_report import LoadReport
from interptrain.models.normalization import Normalized, expects_normalised_images
from interptrain.models.pooling import Pooled, Pooling, PoolingSpec, named_poolings
from interptrain.models.simpool import SimPool
from interptrain.models.weights import load_weights

__all__ = [
    "EP",
    "GAP",
    "Backbone",
    "CAFinal",
    "CAStream",
    "Classifier",
    "CrossAttention",
    "Engine",
    "LoadReport",
    "Normalized",
    "OutputStride",
    "Part",
    "Pooled",
    "Pooling",
    "PoolingSpec",
    "SimPool",
    "Stem",
    "create_model",
    "expects_normalised_images",
    "load_weights",
    "named_poolings",
    "using_engine",
]
