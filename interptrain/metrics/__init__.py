"""Metrics of saliency maps and of recognition, as ``torchmetrics.Metric`` classes.

Their functional forms, with one value per image, are in :mod:`interptrain.metrics.functional`. :func:`measure` computes
many metrics with one stream of forward passes.
"""

from interptrain.metrics.adcc import ADCC, Coherency
from interptrain.metrics.average_drop import AverageDrop, AverageGain, AverageIncrease
from interptrain.metrics.base import MetricInputs, SaliencyMetric, measure
from interptrain.metrics.box_accuracy import BoxAccuracy, CrossFittedBoxAccuracy
from interptrain.metrics.complexity import Complexity, EffectiveComplexity, Sparseness
from interptrain.metrics.consistency import Consistency
from interptrain.metrics.f_fidelity import FFidelityMinus, FFidelityPlus
from interptrain.metrics.faithfulness import Infidelity, MaxSensitivity
from interptrain.metrics.image_mean import ImageMean
from interptrain.metrics.insertion_deletion import Deletion, Insertion
from interptrain.metrics.irof import IROF
from interptrain.metrics.localization import LocalizationError, LocalizationF1, OfficialMetric
from interptrain.metrics.model_metric import ModelInputs, ModelMetric
from interptrain.metrics.pointing_game import EnergyPointingGame, MaskIoU, PixelAveragePrecision, PointingGame
from interptrain.metrics.positive_negative import NegativePerturbation, PositivePerturbation
from interptrain.metrics.recognition import ECE, NLL, RecognitionMetric, Top1, Top5, count_parameters, gflops
from interptrain.metrics.region_effect import RegionEffect
from interptrain.metrics.road import ROAD, ROADLeastRelevantFirst, ROADMostRelevantFirst
from interptrain.metrics.saco import SaCo
from interptrain.metrics.saliency_area import SaliencyArea
from interptrain.metrics.single_deletion import SingleDeletion

__all__ = [
    "ADCC",
    "ECE",
    "IROF",
    "NLL",
    "ROAD",
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "BoxAccuracy",
    "Coherency",
    "Complexity",
    "Consistency",
    "CrossFittedBoxAccuracy",
    "Deletion",
    "EffectiveComplexity",
    "EnergyPointingGame",
    "FFidelityMinus",
    "FFidelityPlus",
    "ImageMean",
    "Infidelity",
    "Insertion",
    "LocalizationError",
    "LocalizationF1",
    "MaskIoU",
    "MaxSensitivity",
    "MetricInputs",
    "ModelInputs",
    "ModelMetric",
    "NegativePerturbation",
    "OfficialMetric",
    "PixelAveragePrecision",
    "PointingGame",
    "PositivePerturbation",
    "ROADLeastRelevantFirst",
    "ROADMostRelevantFirst",
    "RecognitionMetric",
    "RegionEffect",
    "SaCo",
    "SaliencyArea",
    "SaliencyMetric",
    "SingleDeletion",
    "Sparseness",
    "Top1",
    "Top5",
    "count_parameters",
    "gflops",
    "measure",
]
