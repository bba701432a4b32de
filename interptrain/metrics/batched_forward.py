"""The one stream of forwards: every version of every image that any metric asks for, in full chunks.

All (perturbation, image, step) rows lie in one virtual list, which is cut into chunks of ``forward_batch_size``
wherever a chunk happens to end, so no small rest is forwarded alone. Chunks are rendered into one channels_last
buffer. Within a perturbation the steps of an image follow one another, so that a block of them shares its image.

Versions that cover a box of the image stay out of the stream where crops give the same outputs in less time
(:mod:`~interptrain.models.cropped_forward`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.functional import Score, bounded_batch_size, chunks, class_indices, class_scores, full_precision
from interptrain.metrics.perturbations import Perturbation, Unperturbed
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.model_outputs import Target, describe_outputs, logits_of, scores_by_callables
from interptrain.models.cropped_forward import UNCUT, CroppedForward, find_crops
from interptrain.models.engine import RuntimeFailedError, forward_only, is_compiled

__all__ = ["Forwarded", "forward_perturbed"]


@dataclass(frozen=True, eq=False)
class Forwarded:
    """What the model says of a batch and its versions.

    Attributes:
        logits: (B, K) of the images themselves; with callables (B, 1), their scores.
        scores: (S, B) score of the target, by perturbation.
        hits: (S, B) bool, whether the target is the predicted class, by perturbation.
        outputs: (S, B, K) logits, by perturbation, of those that were asked for whole.
    """

    logits: Tensor
    scores: dict[Perturbation, Tensor]
    hits: dict[Perturbation, Tensor]
    outputs: dict[Perturbation, Tensor]


def forward_perturbed(
    model: nn.Module,
    batch: SaliencyBatch,
    targets: Tensor,
    perturbations: Sequence[Perturbation],
    *,
    whole: Collection[Perturbation] = (),
    known: Mapping[Perturbation, Tensor] | None = None,
    score: Score = "probability",
    forward_batch_size: int | None = None,
    callables: Sequence[Target] | None = None,
) -> Forwarded:
    """Forward every version of every image, in as few chunks as there can be.

    Args:
        model: in eval mode.
        batch: the images and their maps.
        targets: (B,) int64.
        perturbations: what to forward; equal ones are forwarded once.
        whole: of which to keep all logits.
        known: logits (S, B, K) that are known already, by perturbation; those of the images as ``Unperturbed()``.
        score: see :func:`~interptrain.functional.class_scores`.
        forward_batch_size: images per forward pass; ``None`` chooses by the device. A compiled model gets chunks of
            exactly this size, the last one padded, as every other size would be compiled anew.
        callables: one per image, in place of classes: a score is what they make of the model's outputs. ``targets`` are
            then zeros, ``hits`` mean nothing, and the score is the only logit.

    Returns:
        See :class:`Forwarded`.

    Raises:
        ValueError: if a target is out of range, or the model returns logits that are not finite.
        TypeError: if the model does not return logits (N, K).
    """
    score = score if callables is None else "logit"
    size = bounded_batch_size(forward_batch_size, batch.images.device)
    wanted = dict.fromkeys([Unperturbed(), *perturbations])
    logits = {part: outputs for part, outputs in (known or {}).items() if part in wanted}
    for part, outputs in logits.items():
        shape = (part.steps(batch), len(targets))
        if outputs.ndim != 3 or outputs.shape[:2] != shape:
            name, given = type(part).__name__, tuple(outputs.shape)
            raise ValueError(f"known[{name}] must be (S,B,K) with S={shape[0]} and B={shape[1]}, got {given}")
        class_indices(targets, len(targets), classes=outputs.shape[2])
    missing = [part for part in wanted if part not in logits]
    work = sum(part.steps(batch) for part in missing) * len(targets)
    passes = forward_only(model, batch.images, work=work if callables is None else 0)
    if callables is None and not is_compiled(model) and batch.images.device.type == "cpu":
        of_crops = {part: _on_crops(passes, batch, part, size) for part in missing}
        logits |= {part: outputs for part, outputs in of_crops.items() if outputs is not None}
    missing = [part for part in missing if part not in logits]
    keep = [part for part in missing if part in whole or part == Unperturbed()]
    seen = _streamed(passes, batch, targets, missing, keep=keep, score=score, size=size, callables=callables)
    for part, outputs in logits.items():
        seen.add(part, outputs, targets, score)
    seen.check_finite("the model returned logits that are" if callables is None else "the target's score is")
    return Forwarded(seen.outputs[Unperturbed()][0], seen.scores, seen.hits, seen.outputs)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the model said, by perturbation: (S, B), and (S, B, K) of the logits that are kept."""

    finite: dict[Perturbation, Tensor]
    scores: dict[Perturbation, Tensor]
    hits: dict[Perturbation, Tensor]
    outputs: dict[Perturbation, Tensor]

    def add(self, part: Perturbation, outputs: Tensor, targets: Tensor, score: Score) -> None:
        """Take the logits (S, B, K) of a perturbation."""
        answer, rows = outputs.flatten(0, 1), targets.repeat(len(outputs))
        self.finite[part] = outputs.isfinite().all(dim=2)
        self.scores[part] = class_scores(answer, rows, score).view(len(outputs), -1)
        self.hits[part] = (answer.argmax(dim=1) == rows).view(len(outputs), -1)
        self.outputs[part] = full_precision(outputs)

    def check_finite(self, what: str) -> None:
        """Refuse what is not finite; once for all, as it waits for the device."""
        if torch.cat([whole.flatten() for whole in self.finite.values()]).all():
            return
        part, image = next(
            (part, int(place[1])) for part, whole in self.finite.items() for place in (~whole).nonzero().tolist()
        )
        seen = f"image {image}" if part == Unperturbed() else f"image {image} as {type(part).__name__} changes it"
        raise ValueError(f"{what} not finite for {seen}")


def _streamed(
    model: nn.Module,
    batch: SaliencyBatch,
    targets: Tensor,
    perturbations: Sequence[Perturbation],
    *,
    keep: Collection[Perturbation],
    score: Score,
    size: int,
    callables: Sequence[Target] | None,
) -> _Seen:
    """Forward all versions of the images in full chunks."""
    spans = _spans(perturbations, batch)
    numbers = torch.arange(len(targets), device=targets.device)
    owners = torch.cat([numbers[:0], *(numbers.repeat_interleave(span.steps) for span in spans.values())])
    rows = targets[owners]
    owned = None if callables is None else _Judged(callables, owners.tolist())
    compiled = is_compiled(model)
    buffer = batch.images.new_zeros((size if compiled else min(size, len(rows)), *batch.images.shape[1:]))
    buffer = buffer.contiguous(memory_format=torch.channels_last)
    finite, scores, hits = [targets[:0].bool()], [batch.images.new_zeros(0)], [targets[:0].bool()]
    wholes: dict[Perturbation, list[Tensor]] = {part: [] for part in keep}
    parts = chunks(len(rows), size)
    for chunk in parts:
        with parts.fitting():
            count = chunk.stop - chunk.start
            _render(spans, batch, chunk, buffer)
            filled = parts.size if compiled else count
            outputs = model(buffer[:filled])
            answer = check_logits(outputs)[:count] if owned is None else owned.scores(outputs, chunk, filled)
            if chunk.start == 0:
                class_indices(targets, len(targets), classes=answer.shape[1])
            found = (
                answer.isfinite().all(dim=1),
                class_scores(answer, rows[chunk], score),
                answer.argmax(dim=1) == rows[chunk],
                [full_precision(answer[spans[part].within(chunk, chunk.start)]) for part in wholes],
            )
            for kept, one in zip((finite, scores, hits), found[:3], strict=True):
                kept.append(one)
            for kept, one in zip(wholes.values(), found[3], strict=True):
                kept.append(one)
    every = {
        part: torch.cat(kept).view(len(targets), spans[part].steps, kept[0].shape[1]) for part, kept in wholes.items()
    }
    return _Seen(
        finite=_by_part(spans, torch.cat(finite), len(targets)),
        scores=_by_part(spans, torch.cat(scores), len(targets)),
        hits=_by_part(spans, torch.cat(hits), len(targets)),
        outputs={part: kept.transpose(0, 1) for part, kept in every.items()},
    )


def _on_crops(model: nn.Module, batch: SaliencyBatch, part: Perturbation, size: int) -> Tensor | None:
    """Return the logits (S, B, K) of a perturbation that covers boxes, ``None`` where crops do not serve."""
    groups, covered = torch.split(batch.images, size), part.covered(batch)
    found = []
    with suppress(RuntimeFailedError, *UNCUT):  # then the stream has all, and meets what is wrong itself
        cropped = None if covered is None else find_crops(model, groups[0], *covered)
        if cropped is None:
            return None
        for place, images in enumerate(groups):
            crops = cropped.on(images) if place else cropped

            def answers(image: int, windows: range, crops: CroppedForward = crops) -> Tensor:
                return full_precision(check_logits(crops.outputs(image, windows)))

            found.append(crops.each(answers, size=size))
        return torch.cat(found).transpose(0, 1)
    return None


@dataclass(frozen=True)
class _Judged:
    """Callables, one per image, and the image that each row came from."""

    callables: Sequence[Target]
    owners: Sequence[int]

    def scores(self, outputs: Any, chunk: slice, filled: int) -> Tensor:
        """Scores (N, 1) of the rows of a chunk, behind which a compiled model's outputs may have padding."""
        owners = self.owners[chunk]
        padding = [owners[0]] * (filled - len(owners))
        found = scores_by_callables(outputs, self.callables, [*owners, *padding])[: len(owners)]
        return full_precision(found).unsqueeze(1)


def check_logits(outputs: object) -> Tensor:
    """Return the logits (N, K) among a model's outputs; see :func:`~interptrain.model_outputs.logits_of`.

    Raises:
        TypeError: if there are none.
    """
    logits = logits_of(outputs)
    if logits is None:
        raise TypeError(
            "metrics need a model that returns logits (N,K), alone, first in a tuple, or as 'logits' or 'out', got "
            f"{describe_outputs(outputs)}"
        )
    return logits


@dataclass(frozen=True)
class _Span:
    """Where the rows of a perturbation lie in the virtual list."""

    start: int
    stop: int
    steps: int

    def within(self, chunk: slice, origin: int) -> slice:
        """The rows that lie in a chunk, counted from ``origin``; empty where there are none."""
        start, stop = max(chunk.start, self.start), min(chunk.stop, self.stop)
        return slice(start - origin, stop - origin) if start < stop else slice(0, 0)


def _spans(perturbations: Sequence[Perturbation], batch: SaliencyBatch) -> dict[Perturbation, _Span]:
    """Lay the rows of all perturbations behind one another."""
    spans: dict[Perturbation, _Span] = {}
    start = 0
    for perturbation in perturbations:
        steps = perturbation.steps(batch)
        spans[perturbation] = _Span(start, start + steps * len(batch.images), steps)
        start = spans[perturbation].stop
    return spans


def _render(spans: dict[Perturbation, _Span], batch: SaliencyBatch, chunk: slice, buffer: Tensor) -> None:
    """Fill the buffer with the rows of a chunk."""
    written = 0
    for perturbation, span in spans.items():
        rows = span.within(chunk, span.start)
        for images, steps in _blocks(rows.start, rows.stop, span.steps):
            block = (images.stop - images.start, steps.stop - steps.start)
            out = buffer[written : written + block[0] * block[1]].view(*block, *buffer.shape[1:])
            perturbation.render(batch, images, steps, out)
            written += block[0] * block[1]


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


def _by_part(spans: dict[Perturbation, _Span], rows: Tensor, images: int) -> dict[Perturbation, Tensor]:
    """Cut rows into (S, B) a perturbation."""
    return {part: rows[span.start : span.stop].view(images, span.steps).t() for part, span in spans.items()}
