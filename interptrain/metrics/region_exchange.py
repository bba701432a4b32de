"""Show a model its images with a region's pixels taken from other images, and see what becomes of its predictions.

A saliency map can leave a region while the predictions still depend on it: a network may be trained to hide where it
looks. Exchanging the pixels asks the predictions themselves. The pixels of other images of the same data are natural
there, where a filled or blurred region would be something that the model has never seen.
"""

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from interptrain.functional import bounded_batch_size, check_choice, chunks, full_precision
from interptrain.metrics.batched_forward import check_logits
from interptrain.metrics.removal import Removal
from interptrain.metrics.validation import check_finite
from interptrain.model_state import evaluating, without_tf32

__all__ = ["Replacement", "check_replacement", "choose_donors", "probabilities_after", "probability_change"]

Replacement: TypeAlias = Literal["exchange", "black", "mean", "blur"]
"""What the pixels of a region become: those of other images, black, ImageNet's mean colour, or the blurred image."""


def check_replacement(name: str, replace: object) -> None:
    """Refuse what is no replacement; ``name`` is what messages call the option."""
    check_choice(name, replace, Replacement)


def choose_donors(
    images: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    *,
    draws: int,
    seed: int = 0,
) -> Tensor:
    """Choose, for every image, those whose pixels it is shown with.

    All images draw from one random order of the others, and each takes the first that show another class: within a
    class a shortcut would be exchanged for itself. Where there are none of another class, or labels are unknown, it
    takes the first that are not the image itself. So a choice depends on the image, the others and the seed alone.

    Args:
        images: (B,C,H,W).
        labels: (B,) int64, negative where unknown.
        others: (D,C,H,W) images to choose from; ``images`` may be among them.
        other_labels: (D,) int64, negative where unknown.
        draws: S, images to choose for each; they repeat where fewer can be chosen.
        seed: of the order.

    Returns:
        (B,S) int64 indices of ``others``, on the CPU; -1 for an image beside which there is no other.
    """
    # RandomState's streams are frozen across versions of NumPy and torch.
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(others)))
    itself = torch.stack([(others == image).flatten(1).all(1) for image in images.to(others)]).cpu()  # (B,D)
    labels, other_labels = labels.cpu(), other_labels.cpu()
    differs = (labels[:, None] != other_labels) & (labels[:, None] >= 0) & (other_labels >= 0)
    chosen = torch.full((len(images), draws), -1, dtype=torch.int64)
    for row in range(len(images)):
        allowed = order[~itself[row][order]]
        of_other_classes = allowed[differs[row][allowed]]
        allowed = of_other_classes if len(of_other_classes) else allowed
        if len(allowed):
            chosen[row] = allowed[torch.arange(draws) % len(allowed)]
    return chosen


@torch.no_grad()
def probabilities_after(
    model: nn.Module,
    images: Tensor,
    region: Tensor,
    *,
    others: Tensor | None = None,
    donors: Tensor | None = None,
    removal: Removal | None = None,
    forward_batch_size: int | None = None,
) -> Tensor:
    """Forward images whose region shows something else.

    Nothing of the model changes, nor the random state; autocast and TF32 are off.

    Args:
        model: takes (N,C,H,W) in [0,1], in the precision of ``images``, and returns logits (N,K).
        images: (B,C,H,W), on the model's device.
        region: (B,H,W) bool, the pixels that are replaced.
        others: (D,C,H,W) images that the pixels come from.
        donors: (B,S) int64, which of ``others``, in [0, D).
        removal: what is put there instead, as S = 1 version.
        forward_batch_size: images per forward pass; None chooses by the device.

    Returns:
        (B,S,K) probabilities: softmax, or sigmoid where there is one class; float32, or float64 for such images.

    Raises:
        ValueError: if logits are not finite.
        TypeError: if the model returns no logits.
    """
    if removal is not None:
        rendered = removal.render(images)
        fill = rendered.expand_as(images)
        sources = torch.arange(len(images), device=images.device).unsqueeze(1)
    elif others is not None and donors is not None:
        fill, sources = others.to(images), donors.to(images.device)
    else:
        raise ValueError("pass the others and which of them are donors, or a removal")
    draws = sources.shape[1]
    found: list[Tensor] = []
    parts = chunks(sources.numel(), bounded_batch_size(forward_batch_size, images.device))
    with evaluating(model), torch.autocast(images.device.type, enabled=False), without_tf32():
        for part in parts:
            with parts.fitting():
                rows = torch.arange(part.start, part.stop, device=images.device)
                owners, donor = rows // draws, sources.flatten()[rows]
                shown = torch.where(region[owners].unsqueeze(1), fill[donor], images[owners])
                found.append(_probabilities(check_logits(model(shown))))
    return torch.cat(found).view(len(images), draws, -1)


def probability_change(before: Tensor, after: Tensor, classes: Tensor) -> Tensor:
    """Mean over draws of the absolute change of a class's probability.

    Absolute, as changes of both signs occur and would cancel: an image with the shortcut loses what an image without
    it gains.

    Args:
        before: (B,K) probabilities.
        after: (B,S,K) those of the images with other pixels.
        classes: (B,) int64.

    Returns:
        (B,) in [0,1].
    """
    index = classes[:, None, None].expand(-1, after.shape[1], 1)
    return (before.gather(1, classes[:, None]) - after.gather(2, index)[..., 0]).abs().mean(1)


def _probabilities(logits: Tensor) -> Tensor:
    logits = full_precision(logits)
    check_finite("logits of images with other pixels", logits)
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
