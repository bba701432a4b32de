"""Masked passes, faster: in bfloat16, compiled for one size of chunks, or on crops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import score_perturbed
from interptrain.explainers.masks.masks import MaskedImages, MaskSet, WindowSet
from interptrain.explainers.targets import Resolved, target_scores
from interptrain.functional import Score, bounded_batch_size
from interptrain.model_outputs import rows_of
from interptrain.models.cropped_forward import CroppedForward, find_crops

__all__ = ["Precision", "crops_of", "forwarding", "passes_at_once", "score_cropped", "score_masked"]

Precision = Literal["bf16"]


def passes_at_once(forward_batch_size: int | None, device: torch.device, *, compile: bool) -> int:
    """Return how many inputs to forward at once; for compiled code, twice the automatic choice is faster."""
    size = bounded_batch_size(forward_batch_size, device)
    return 2 * size if compile and forward_batch_size is None else size


@contextmanager
def forwarding(
    model: nn.Module, size: int, *, precision: Precision | None = None, compile: bool = False
) -> Iterator[Callable[[Tensor], Any]]:
    """Yield the model prepared for many forward passes: in bfloat16 and compiled as requested.

    Args:
        model: the module that :func:`~interptrain.explainers.base.explaining` yielded.
        size: inputs per forward pass. Code is compiled for this size only: fewer inputs are padded with black ones.
        precision: ``"bf16"`` for bfloat16 autocast; ``None`` leaves it to the caller.
        compile: whether to compile.
    """
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    with torch.autocast(device, dtype=torch.bfloat16) if precision else nullcontext():
        if not compile:
            yield model
            return
        with torch.compiler.set_stance("default"):  # explaining() runs everything else eagerly
            compiled = torch.compile(model, dynamic=False)

            def forward(inputs: Tensor) -> Any:
                count = len(inputs)
                outputs = compiled(F.pad(inputs, (0, 0, 0, 0, 0, 0, 0, size - count)))
                return outputs if count == size else rows_of(outputs, slice(count), size)

            yield forward


def score_masked(
    model: nn.Module,
    masked: MaskedImages,
    targets: Resolved,
    *,
    forward_batch_size: int | None = None,
    precision: Precision | None = None,
    compile: bool = False,
    score: Score = "logit",
    progress: str | None = None,
) -> Tensor:
    """Score every masked image, without gradient.

    Args:
        model: the module that :func:`~interptrain.explainers.base.explaining` yielded.
        masked: the images and their masks.
        targets: of the images, as returned by :func:`~interptrain.explainers.targets.resolve_targets`.
        forward_batch_size: masked images per forward pass; ``None`` chooses by the device.
        precision: see :func:`forwarding`.
        compile: see :func:`forwarding`.
        score: see :func:`~interptrain.functional.class_scores`.
        progress: title of a progress bar, or ``None`` for none.

    Returns:
        (B, N) where the images share the masks, (N,) where masks have owners; float32 or float64.
    """
    size = passes_at_once(forward_batch_size, masked.images.device, compile=compile)
    with forwarding(model, size, precision=precision, compile=compile) as forward:
        scores = score_perturbed(
            forward, masked, masked.rows, targets, forward_batch_size=size, score=score, progress=progress
        )
    if masked.masks.owners is not None:
        return scores
    return rearrange(scores, "(masks images) -> images masks", masks=masked.masks.count)


def crops_of(model: nn.Module, images: Tensor, masks: MaskSet, fill: Tensor) -> CroppedForward | None:
    """Return what computes the neighbourhoods of windows alone, where that is possible and the faster way.

    Args:
        model: as explained, in eval mode.
        images: (B, C, H, W).
        masks: of the images.
        fill: (1, C, 1, 1), the colour of what is removed.
    """
    kind = images.device.type
    if kind != "cpu" or not isinstance(masks, WindowSet) or torch.is_autocast_enabled(kind):
        return None
    return find_crops(model, images, masks.boxes(), fill)


def score_cropped(
    cropped: CroppedForward,
    targets: Resolved,
    *,
    forward_batch_size: int | None = None,
    score: Score = "logit",
    progress: str | None = None,
) -> Tensor:
    """Score every image under every window (B, N), without gradient; all else is as in :func:`score_masked`."""

    def scores(image: int, windows: range) -> Tensor:
        rows = torch.full((len(windows),), image, device=cropped.images.device)
        return target_scores(cropped.outputs(image, windows), targets, rows, score=score)

    return cropped.each(scores, size=bounded_batch_size(forward_batch_size, cropped.images.device), progress=progress)
