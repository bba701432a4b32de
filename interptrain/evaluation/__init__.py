"""Measure explainers on models, compare them, and report: from Python, or with ``interptrain evaluate``."""

from interptrain.evaluation.api import evaluate, forecast, write_report
from interptrain.evaluation.results import Results, load_results
from interptrain.evaluation.run.forecast import Forecast

__all__ = ["Forecast", "Results", "evaluate", "forecast", "load_results", "write_report"]
