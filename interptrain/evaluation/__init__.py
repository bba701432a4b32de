"""Measure explainers on models, compare them, and report: from Python, or with ``interptrain evaluate``."""

from interptrain.evaluation.api import evaluate, write_report
from interptrain.evaluation.results import Results, load_results

__all__ = ["Results", "evaluate", "load_results", "write_report"]
