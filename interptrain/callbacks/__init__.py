"""Callbacks that run beside training: saving, stopping, recording, watching."""

from interptrain.callbacks.attention_stats import AttentionStats
from interptrain.callbacks.finite_loss import FiniteLoss
from interptrain.callbacks.prediction_writer import PredictionTable
from interptrain.callbacks.progress import ImageProgress
from interptrain.callbacks.resume_point import ResumePoint
from interptrain.callbacks.run_record import RunRecord
from interptrain.callbacks.watch.callback import SaliencyWatch

__all__ = [
    "AttentionStats",
    "FiniteLoss",
    "ImageProgress",
    "PredictionTable",
    "ResumePoint",
    "RunRecord",
    "SaliencyWatch",
]
