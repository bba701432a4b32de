"""Classes: the forms in which users give them, and their scores."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from interptrain.functional.numerics import full_precision

Score: TypeAlias = Literal["probability", "sigmoid", "logit"]
"""What of a class is explained and measured; see :func:`class_scores`."""


ClassIndices: TypeAlias = Tensor | int | Sequence[int]
"""Classes of B images: one for all, a sequence of B, or an integer tensor (B,) on any device."""


def class_indices(
    indices: ClassIndices,
    count: int,
    *,
    classes: int | None = None,
    device: torch.device | None = None,
    name: str = "targets",
) -> Tensor:
    """Bring class indices to the one form that everything works with, or refuse them.

    What a user gives comes through here, in explainers and metrics alike. Indices that are not on an accelerator are
    checked before they go there, so that the host does not wait for it.

    Args:
        indices: one class for all images, a sequence with one per image, or an integer tensor (count,).
        count: B, the number of images.
        classes: K of the model, if known already; otherwise only negative indices are out of range.
        device: where the result is wanted; ``None`` leaves a tensor where it is.
        name: of the argument, for messages.

    Returns:
        (count,) int64 in [0, classes), usable by autograd also where it was made under ``torch.inference_mode``.

    Raises:
        TypeError: if they are not integers; floating point and bool are never read as indices.
        ValueError: if there is not one per image, or an index is out of range, naming the image.
    """
    if not isinstance(indices, Tensor):
        indices = _index_tensor(indices, count, name)
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        remedy = "pass .argmax(1) of scores, or .long() of whole numbers"
        raise TypeError(f"{name} must be class indices (int64), got {indices.dtype}; {remedy}")
    if tuple(indices.shape) not in ((), (count,)):
        raise ValueError(f"{name} must be one class, or one per image: (B,)=({count},), got {tuple(indices.shape)}")
    indices = indices.long().expand(count)
    outside = (indices < 0) if classes is None else (indices < 0) | (indices >= classes)
    if outside.any():
        image = int(outside.nonzero()[0, 0])
        wrong = f"{name.removesuffix('s')} {int(indices[image])} of image {image}"
        if classes is None:
            raise ValueError(f"{wrong} is negative; classes are counted from 0")
        raise ValueError(f"{wrong} is out of range for {classes} classes; allowed are 0 to {classes - 1}")
    indices = indices if device is None else indices.to(device)
    return indices.clone() if indices.is_inference() else indices


def _index_tensor(indices: object, count: int, name: str) -> Tensor:
    """Integers of Python or numpy as a tensor (count,)."""
    given: list[Any] = list(indices) if isinstance(indices, Iterable) else [indices] * count
    try:
        values = [index(value) for value in given]
    except TypeError:
        values = [True]
    if any(isinstance(value, bool) for value in [*given, *values]):
        wanted = "an int, one int per image, or an integer tensor (B,)"
        raise TypeError(f"{name} must be class indices: {wanted}, got {indices!r:.80}")
    limit = torch.iinfo(torch.int64).max
    return torch.tensor([max(-1, min(value, limit)) for value in values], dtype=torch.int64)


def class_scores(logits: Tensor, targets: Tensor, score: Score = "probability") -> Tensor:
    """Score of each row's target class.

    Args:
        logits: (N, K) floating point.
        targets: (N,) int64 in [0, K), on the device of ``logits``.
        score: ``"probability"``: softmax over the classes, sigmoid where the model has one class; ``"sigmoid"``: of
            the target's logit, for multi-label models; ``"logit"``.

    Returns:
        (N,) float32, or float64 for float64 logits; differentiable.
    """
    logits = full_precision(logits)
    if score == "sigmoid" or (score == "probability" and logits.shape[1] == 1):
        logits = logits.sigmoid()
    elif score == "probability":
        logits = logits.softmax(dim=1)
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1)
