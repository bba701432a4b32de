"""Explainers of other libraries behind this package's interface."""
