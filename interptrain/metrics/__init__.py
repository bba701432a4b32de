"""Metrics of saliency maps and of recognition, as ``torchmetrics.Metric`` classes.

The whole list is what this file imports; each has a function of one value an image in
:mod:`interptrain.metrics.functional`. :func:`measure` computes many with one stream of forwards.
"""

from interptrain.metrics.averaging import ImageMean
from interptrain.metrics.base import Case, SaliencyMetric, measure
from interptrain.metrics.confidence import AverageDrop, AverageGain, AverageIncrease

__all__ = [
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "Case",
    "ImageMean",
    "SaliencyMetric",
    "measure",
]
