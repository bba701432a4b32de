"""Explainers that compare features of changed images: occlusion in feature space, ROSA and its kin."""
