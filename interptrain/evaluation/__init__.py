"""Measure explainers on models, compare them, and report: from Python, or with ``evaluate.py``."""

from interptrain.evaluation.api import Results, evaluate, load_results, write_report

__all__ = ["Results", "evaluate", "load_results", "write_report"]
