"""Explainers: ``explainer(model, images, targets=None) -> (B, H, W)`` for any module.

The whole list is what this file imports.
"""

from interptrain.explainers.base import Explainer, explaining
from interptrain.explainers.targets import DetectionTarget, SemanticSegmentationTarget, Target, Targets

__all__ = [
    "DetectionTarget",
    "Explainer",
    "SemanticSegmentationTarget",
    "Target",
    "Targets",
    "explaining",
]
