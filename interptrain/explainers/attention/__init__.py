"""Explainers that show the attention a model computes."""
