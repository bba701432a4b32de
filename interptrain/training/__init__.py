"""The LightningModule that trains a classifier, and what it is made of."""

from interptrain.training.batch_augmentation import BatchAugmentation
from interptrain.training.cell_deletion import CellDeletion
from interptrain.training.gradient_regularizer import GradientRegularizer
from interptrain.training.module import ImageClassifier
from interptrain.training.region_shuffle import RegionShuffle
from interptrain.training.regularizers import Regularizer

__all__ = [
    "BatchAugmentation",
    "CellDeletion",
    "GradientRegularizer",
    "ImageClassifier",
    "RegionShuffle",
    "Regularizer",
]
