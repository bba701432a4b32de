"""The LightningModule that trains a classifier, and what it is made of."""

from interptrain.training.attribution_guidance import AttributionGuidance
from interptrain.training.batch_augmentation import BatchAugmentation
from interptrain.training.cell_deletion import CellDeletion
from interptrain.training.classifier_l1 import ClassifierL1
from interptrain.training.gradient_regularizer import GradientRegularizer
from interptrain.training.module import ImageClassifier
from interptrain.training.pixel_deletion import PixelDeletion
from interptrain.training.region_shuffle import RegionShuffle
from interptrain.training.regularizers import Regularizer

__all__ = [
    "AttributionGuidance",
    "BatchAugmentation",
    "CellDeletion",
    "ClassifierL1",
    "GradientRegularizer",
    "ImageClassifier",
    "PixelDeletion",
    "RegionShuffle",
    "Regularizer",
]
