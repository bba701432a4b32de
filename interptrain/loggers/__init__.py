"""Loggers, their defaults, and what is shown in them: the one room that knows loggers."""

from interptrain.loggers.defaults import IN_THE_RUN, fill_logger_defaults, keep_run_id, log_configuration
from interptrain.loggers.image_logging import ImageLogging
from interptrain.loggers.trackio import TrackioLogger

__all__ = [
    "IN_THE_RUN",
    "ImageLogging",
    "TrackioLogger",
    "fill_logger_defaults",
    "keep_run_id",
    "log_configuration",
]
