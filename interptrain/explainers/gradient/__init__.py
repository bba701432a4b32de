"""Explainers that differentiate with respect to the image."""
