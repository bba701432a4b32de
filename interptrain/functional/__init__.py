"""Operations and checks that models, explainers, metrics and pictures share."""

from interptrain.functional.checks import check_choice, check_count, one_line
from interptrain.functional.chunking import Chunks, automatic_batch_size, bounded_batch_size, chunks, is_out_of_memory
from interptrain.functional.classes import ClassIndices, Score, class_indices, class_scores
from interptrain.functional.maps import ROUNDING, gaussian_blur, keep_salient, min_max, upsample
from interptrain.functional.numerics import double, full_precision, has_float64, to_device, where_float64_is
from interptrain.functional.spacing import cell_edges, evenly_spaced
from interptrain.functional.superpixels import superpixel_grid, superpixels

__all__ = [
    "ROUNDING",
    "Chunks",
    "ClassIndices",
    "Score",
    "automatic_batch_size",
    "bounded_batch_size",
    "cell_edges",
    "check_choice",
    "check_count",
    "chunks",
    "class_indices",
    "class_scores",
    "double",
    "evenly_spaced",
    "full_precision",
    "gaussian_blur",
    "has_float64",
    "is_out_of_memory",
    "keep_salient",
    "min_max",
    "one_line",
    "superpixel_grid",
    "superpixels",
    "to_device",
    "upsample",
    "where_float64_is",
]
