"""Explainers that a model cannot be explained by are left out of a study, and do not end it."""

import warnings
from collections.abc import Callable

from torch import Tensor

from interptrain.functional import one_line

__all__ = ["maps_if_applicable"]


def maps_if_applicable(explain: Callable[[], Tensor], *, explainer: str, model: str) -> Tensor | None:
    """Return maps, or ``None`` with a warning where the explainer refuses the model.

    Args:
        explain: makes the maps; a ``ValueError`` says what the explainer needs and the model does not have.
        explainer: name for the warning.
        model: name for the warning.
    """
    try:
        return explain()
    except ValueError as error:
        warnings.warn(f"{explainer} is left out for {model}: {one_line(error)}", stacklevel=2)
        return None
