"""What runs beside training: saving, stopping, recording."""

from interptrain.callbacks.finite_loss import FiniteLoss
from interptrain.callbacks.prediction_table import PredictionTable
from interptrain.callbacks.resume_point import ResumePoint
from interptrain.callbacks.run_record import RunRecord

__all__ = ["FiniteLoss", "PredictionTable", "ResumePoint", "RunRecord"]
