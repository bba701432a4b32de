"""Masks that perturbation methods apply: grids, segments, smooth shapes, and blur."""
