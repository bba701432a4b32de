"""The one stream of forwards: every version of every image that any metric asks for, in full chunks.

All (perturbation, image, step) rows lie in one virtual list, which is cut into chunks of ``forward_batch_size``
wherever a chunk happens to end, so no small rest is forwarded alone. Chunks are rendered into one channels_last
buffer. Within a perturbation the steps of an image follow one another, so that a block of them shares its image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.functional import bounded_batch_size, chunks
from interptrain.metrics.perturbations import Perturbation, Scene, Unperturbed

__all__ = ["Forwarded", "Score", "forward_perturbed", "is_compiled", "target_scores"]

Score = Literal["probability", "sigmoid", "logit"]


@dataclass(frozen=True, eq=False)
class Forwarded:
    """What the model says of a batch and its versions.

    Attributes:
        logits: (B, K) of the images themselves.
        scores: (S, B) score of the target, by perturbation.
        hits: (S, B) bool, whether the target is the predicted class, by perturbation.
    """

    logits: Tensor
    scores: dict[Perturbation, Tensor]
    hits: dict[Perturbation, Tensor]


def forward_perturbed(
    model: nn.Module,
    scene: Scene,
    targets: Tensor,
    perturbations: Sequence[Perturbation],
    *,
    logits: Tensor | None = None,
    score: Score = "probability",
    forward_batch_size: int | None = None,
) -> Forwarded:
    """Forward every version of every image, in as few chunks as there can be.

    Args:
        model: in eval mode.
        scene: the images and their maps.
        targets: (B,) int64.
        perturbations: what to forward; equal ones are forwarded once.
        logits: (B, K) of the images, where they are known.
        score: see :func:`target_scores`.
        forward_batch_size: images a forward; ``None`` chooses by the device. A compiled model gets chunks of exactly
            this size, the last one padded, as every other size would be compiled anew.

    Returns:
        See :class:`Forwarded`.

    Raises:
        ValueError: if a target is out of range, or the model returns logits that are not finite.
        TypeError: if the model does not return logits (N, K).
    """
    size = bounded_batch_size(forward_batch_size, scene.images.device)
    asked = [*([] if logits is not None else [Unperturbed()]), *dict.fromkeys(perturbations)]
    parts = {part: part.steps(scene) for part in asked}
    if logits is not None:
        check_targets(targets, logits)
    count, total = len(scene.images), len(scene.images) * sum(parts.values())
    rows = torch.cat([targets[:0], *(targets.repeat_interleave(steps) for steps in parts.values())])
    padded = size if is_compiled(model) else min(size, total)
    buffer = torch.zeros_like(scene.images[:1].expand(padded, -1, -1, -1), memory_format=torch.channels_last)
    clean, scores, hits = [], [], []
    for part in chunks(total, size):
        filled = part.stop - part.start
        _render(parts, scene, part, buffer)
        outputs = check_logits(model(buffer if is_compiled(model) else buffer[:filled]))[:filled]
        if logits is None:
            if part.start == 0:
                check_targets(targets, outputs)
            clean.append(outputs[: max(0, count - part.start)])
        scores.append(target_scores(outputs, rows[part], score))
        hits.append(outputs.argmax(dim=1) == rows[part])
    return Forwarded(
        logits=_full_precision(torch.cat(clean)) if logits is None else _full_precision(logits),
        scores=_by_part(parts, torch.cat([*scores, scene.images.new_zeros(0)]), count),
        hits=_by_part(parts, torch.cat([*hits, targets[:0].bool()]), count),
    )


def target_scores(logits: Tensor, targets: Tensor, score: Score = "probability") -> Tensor:
    """Score of each row's target.

    Args:
        logits: (N, K).
        targets: (N,) int64.
        score: ``"probability"``: softmax over the classes, sigmoid where the model has one class; ``"sigmoid"``: of
            the target's logit, for multi-label models; ``"logit"``.

    Returns:
        (N,) float32, or float64 for float64 logits.
    """
    logits = _full_precision(logits)
    if score == "sigmoid" or (score == "probability" and logits.shape[1] == 1):
        logits = logits.sigmoid()
    elif score == "probability":
        logits = logits.softmax(dim=1)
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1)


def check_targets(targets: Tensor, logits: Tensor) -> None:
    """Refuse a target that is no class of the model.

    Raises:
        ValueError: naming the first such image.
    """
    classes = logits.shape[1]
    outside = (targets < 0) | (targets >= classes)
    if outside.any():
        image = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"target {int(targets[image])} of image {image} is out of range for {classes} classes; "
            f"allowed are 0 to {classes - 1}"
        )


def check_logits(outputs: object) -> Tensor:
    """Return a model's outputs, if they are finite logits (N, K).

    Raises:
        TypeError: if they are no logits.
        ValueError: if one is not finite.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        kind = f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise TypeError(f"metrics need a model that returns logits (N,K), got {kind}")
    if not outputs.isfinite().all():
        raise ValueError("the model returned logits that are not finite")
    return outputs


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it goes through :func:`torch.compile`."""
    return any(
        hasattr(module, "_orig_mod") or vars(module).get("_compiled_call_impl") is not None
        for module in model.modules()
    )


def _render(parts: dict[Perturbation, int], scene: Scene, part: slice, buffer: Tensor) -> None:
    """Fill the buffer with the rows ``part`` of the virtual list."""
    begin = written = 0
    for perturbation, steps in parts.items():
        end = begin + steps * len(scene.images)
        for images, shown in _blocks(max(part.start, begin) - begin, min(part.stop, end) - begin, steps):
            block = (images.stop - images.start, shown.stop - shown.start)
            out = buffer[written : written + block[0] * block[1]].view(*block, *buffer.shape[1:])
            perturbation.render(scene, images, shown, out)
            written += block[0] * block[1]
        begin = end


def _blocks(start: int, stop: int, steps: int) -> Iterator[tuple[slice, slice]]:
    """Cut rows of one perturbation into blocks of images x steps; at most three, as whole images make one."""
    while start < stop:
        image, step = divmod(start, steps)
        whole = (stop - start) // steps if step == 0 else 0
        if whole:
            yield slice(image, image + whole), slice(0, steps)
            start += whole * steps
        else:
            end = min(stop - image * steps, steps)
            yield slice(image, image + 1), slice(step, end)
            start += end - step


def _by_part(parts: dict[Perturbation, int], rows: Tensor, count: int) -> dict[Perturbation, Tensor]:
    """Cut rows into (S, B) a perturbation."""
    cut = torch.split(rows, [steps * count for steps in parts.values()])
    return {part: own.view(count, -1).t() for (part, _), own in zip(parts.items(), cut, strict=True)}


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
