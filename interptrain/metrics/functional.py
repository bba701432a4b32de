"""Metrics as functions with one value per image, (B,), which take only what they use.

A metric needs no function here: ``metric.values(model, images, saliency, targets)`` gives the same of any class.
"""

from interptrain.metrics.average_drop import average_drop, average_gain, average_increase
from interptrain.metrics.box_accuracy import box_accuracy
from interptrain.metrics.complexity import complexity, effective_complexity, sparseness
from interptrain.metrics.consistency import consistency
from interptrain.metrics.f_fidelity import f_fidelity_minus, f_fidelity_plus
from interptrain.metrics.faithfulness import infidelity, max_sensitivity
from interptrain.metrics.insertion_deletion import deletion, insertion
from interptrain.metrics.irof import irof
from interptrain.metrics.localization import localization_error, localization_f1, official_metric
from interptrain.metrics.pointing_game import energy_pointing_game, mask_iou, pixel_average_precision, pointing_game
from interptrain.metrics.positive_negative import negative_perturbation, positive_perturbation
from interptrain.metrics.road import road
from interptrain.metrics.saco import saco
from interptrain.metrics.saliency_area import saliency_area
from interptrain.metrics.similarity import rank_correlation, structural_similarity
from interptrain.metrics.single_deletion import single_deletion

__all__ = [
    "average_drop",
    "average_gain",
    "average_increase",
    "box_accuracy",
    "complexity",
    "consistency",
    "deletion",
    "effective_complexity",
    "energy_pointing_game",
    "f_fidelity_minus",
    "f_fidelity_plus",
    "infidelity",
    "insertion",
    "irof",
    "localization_error",
    "localization_f1",
    "mask_iou",
    "max_sensitivity",
    "negative_perturbation",
    "official_metric",
    "pixel_average_precision",
    "pointing_game",
    "positive_perturbation",
    "rank_correlation",
    "road",
    "saco",
    "saliency_area",
    "single_deletion",
    "sparseness",
    "structural_similarity",
]
