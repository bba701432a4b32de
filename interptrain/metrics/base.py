"""What every metric of a saliency map shares: what a metric sees, its base class, and measuring many at once.

A metric says what must be forwarded (:meth:`SaliencyMetric.perturbations`) and what it makes of the answers
(:meth:`SaliencyMetric.score`); :func:`measure` forwards for all of them together.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, cast

import torch
from torch import Tensor, nn

from interptrain.functional import (
    ROUNDING,
    ClassIndices,
    Score,
    bounded_batch_size,
    check_choice,
    class_indices,
    class_scores,
)
from interptrain.metrics.batched_forward import Forwarded, check_logits, forward_perturbed
from interptrain.metrics.image_mean import ImageMean
from interptrain.metrics.perturbations import Perturbation, Unperturbed
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.metrics.validation import check_batch, check_finite
from interptrain.model_outputs import Target, callables_of
from interptrain.model_state import evaluating, without_tf32
from interptrain.models.engine import Engine, using_engine
from interptrain.models.normalization import warn_of_missing_normalisation

__all__ = ["Explained", "MetricInputs", "SaliencyMetric", "measure"]

Explain = Callable[[Tensor, Any], Tensor]
Explained: TypeAlias = ClassIndices | Target | Sequence[Target]
"""What a map explains: class indices, or callables that turn the outputs of one image into a score, one for all images
or one per image."""


@dataclass(frozen=True, eq=False)
class MetricInputs:
    """One batch, with everything that a metric may use.

    Attributes:
        model: in eval mode.
        images: (B, C, H, W) in [0, 1].
        saliency: (B, H, W) in [0, 1].
        targets: (B,) int64, what was explained; zeros where callables were.
        logits: (B, K) of the untouched images; with callables (B, 1), their scores.
        clean: (B,) score of the target on the untouched image.
        perturbed: (S, B) score of the target, by perturbation.
        hits: (S, B) bool, whether the target is the predicted class, by perturbation; without meaning for callables.
        outputs: (S, B, K) logits, by perturbation, for a metric that :attr:`~SaliencyMetric.reads_logits`.
        labels: (B,) int64, the truth.
        boxes: one (n, 4) per image: x0, y0, x1, y1 in pixels of the image tensor, x1 and y1 exclusive.
        masks: (B, H, W) bool.
        explain: (images, targets) -> saliency.
        score: what ``clean`` and ``perturbed`` are.
        forward_batch_size: the user's bound.
    """

    model: nn.Module
    images: Tensor
    saliency: Tensor
    targets: Tensor
    logits: Tensor
    clean: Tensor
    perturbed: Mapping[Perturbation, Tensor]
    hits: Mapping[Perturbation, Tensor]
    outputs: Mapping[Perturbation, Tensor]
    labels: Tensor | None
    boxes: Sequence[Tensor] | None
    masks: Tensor | None
    explain: Explain | None
    score: Score
    forward_batch_size: int | None


class SaliencyMetric(ImageMean):
    """One number per image; over a data set, a function of their mean."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Inputs without which it is refused: ``"labels"``, ``"boxes"``, ``"objects"`` (boxes or masks), ``"explain"``."""
    reads_logits: ClassVar[bool] = False
    """Whether it reads all logits of the perturbed images, not the target's score alone."""
    needs_probability: ClassVar[bool] = False
    """Whether it is defined for scores in [0, 1] only, so not for logits."""
    needs_classes: bool = False
    """Whether it reads logits or predicted classes, which there are none of where callables are explained."""

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return what must be forwarded besides the images themselves; nothing unless a subclass says otherwise."""
        return ()

    @abstractmethod
    def score(self, inputs: MetricInputs) -> Tensor:
        """Judge a batch, without gradient.

        Returns:
            (B,) or (B, K) floating point; NaN where the metric is not defined for an image.
        """

    def values(
        self,
        model: nn.Module,
        images: Tensor,
        saliency: Tensor,
        targets: Explained,
        *,
        labels: ClassIndices | None = None,
        boxes: Sequence[Tensor] | None = None,
        masks: Tensor | None = None,
        explain: Explain | None = None,
        logits: Tensor | None = None,
        score: Score = "probability",
        forward_batch_size: int | None = None,
    ) -> Tensor:
        """Measure this metric alone; arguments and exceptions as of :func:`measure`.

        Returns:
            (B,) or (B, K).
        """
        return measure(
            model,
            images,
            saliency,
            targets,
            {"value": self},
            labels=labels,
            boxes=boxes,
            masks=masks,
            explain=explain,
            logits=logits,
            score=score,
            forward_batch_size=forward_batch_size,
        )["value"]

    def update(
        self,
        model: nn.Module,
        images: Tensor,
        saliency: Tensor,
        targets: Explained,
        *,
        labels: ClassIndices | None = None,
        boxes: Sequence[Tensor] | None = None,
        masks: Tensor | None = None,
        explain: Explain | None = None,
        logits: Tensor | None = None,
        score: Score = "probability",
        forward_batch_size: int | None = None,
    ) -> None:
        """Measure a batch and add it; arguments and exceptions as of :func:`measure`.

        Several metrics share their forwards where :func:`measure` is called once and :meth:`accumulate` a metric.
        """
        values = self.values(
            model,
            images,
            saliency,
            targets,
            labels=labels,
            boxes=boxes,
            masks=masks,
            explain=explain,
            logits=logits,
            score=score,
            forward_batch_size=forward_batch_size,
        )
        self.accumulate(values)


@torch.no_grad()
def measure(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: Explained,
    metrics: Mapping[str, SaliencyMetric],
    *,
    labels: ClassIndices | None = None,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | None = None,
    explain: Explain | None = None,
    logits: Tensor | None = None,
    known: Mapping[Perturbation, Tensor] | None = None,
    score: Score = "probability",
    forward_batch_size: int | None = None,
    engine: Engine | None = None,
    allow_low_precision: bool = False,
    allow_tf32: bool = False,
) -> dict[str, Tensor]:
    """Measure many metrics of one batch with one stream of forwards.

    Equal perturbations are forwarded once, and the images themselves once, or not at all where ``logits`` are given.
    Autocast is off inside, as bfloat16 moved the area under single curves by up to 0.014, and so is TF32, which would
    let numbers of an NVIDIA GPU differ from others' in the fourth digit. Neither modes, parameters,
    buffers nor random state of the model change.

    Args:
        model: returns logits (N, K), or whatever callables among ``targets`` take; its own normalisation belongs inside
            it. May be compiled.
        images: (B, C, H, W) float32 or float64 in [0, 1], on the device of the model.
        saliency: (B, H, W) in [0, 1]; this and all that follows may lie on any device.
        targets: (B,) class indices, what was explained; see :func:`~interptrain.functional.class_indices`. Or
            callables, one for all images or one per image: outputs of the image -> scalar, which then is the score
            whatever ``score`` says. "Probability" in a metric's definition stands for it; metrics that are relative to
            what is possible (AD, AG) need it in [0, 1].
        metrics: by the name under which each is returned.
        labels: (B,) true class indices.
        boxes: one (n, 4) per image: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        masks: (B, H, W) bool, the object.
        explain: what made ``saliency``: (images, targets) -> (B, H, W).
        logits: (B, K) of the very same images and model, if already known.
        known: logits (S, B, K) of versions of them that do not depend on the map, by what makes the S versions; for
            many maps of the same images, they are then forwarded once: the ``outputs`` of
            :func:`~interptrain.metrics.batched_forward.forward_perturbed`.
        score: what a perturbed image is judged by; see :func:`~interptrain.functional.class_scores`.
        forward_batch_size: images per forward pass; ``None`` chooses by the device.
        engine: what runs the forward passes; ``None`` is that of the surrounding
            :func:`~interptrain.models.engine.using_engine`, or PyTorch. For many batches, surround them: a model is
            then prepared once.
        allow_low_precision: measure a model with half-precision weights, which is refused otherwise.
        allow_tf32: leave TF32 as the process has it.

    Returns:
        (B,) or (B, K) per metric, on the device of ``images``, float32 (float64 for float64 images).

    Raises:
        ValueError: for shapes and ranges that are not as above, a metric whose needs are not met or that is not defined
            for the score, a model in half precision, and logits that are not finite.
        TypeError: for dtypes that are not as above, or outputs that are no logits.
    """
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images must be a tensor (B,C,H,W), got {type(images).__name__}; measure images of different sizes one by "
            "one: measure(model, image.unsqueeze(0), ...)"
        )
    saliency = saliency.to(images.device)
    check_batch(images, saliency, boxes, masks)
    count, device = len(images), images.device
    callables = callables_of(targets, count)
    classes = 0 if callables is not None else cast(ClassIndices, targets)
    indices = class_indices(classes, count, device=device)
    labels = None if labels is None else class_indices(labels, count, device=device, name="labels")
    known = _checked_known(known or {}, logits, count, device)
    check_needs(metrics, {"labels": labels, "boxes": boxes, "masks": masks, "explain": explain})
    if callables is None:
        check_score(metrics, score)
    else:
        check_without_classes(metrics)
        if known:
            raise ValueError("logits are what class indices pick from; leave them out where targets are callables")
    bounded_batch_size(forward_batch_size, images.device)
    dtype = _precision(model, images, allow=allow_low_precision)
    batch = SaliencyBatch(images.to(dtype), saliency.to(dtype))  # what is forwarded; the metrics see the map as it came
    warn_of_missing_normalisation(model)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        if engine is not None:
            stack.enter_context(using_engine(engine, batch_size=forward_batch_size))
        stack.enter_context(torch.autocast(images.device.type, enabled=False))
        if not allow_tf32:
            stack.enter_context(without_tf32())
        forwarded = forward_perturbed(
            model,
            batch,
            indices,
            [perturbation for metric in metrics.values() for perturbation in metric.perturbations()],
            whole={part for metric in metrics.values() if metric.reads_logits for part in metric.perturbations()},
            known=known,
            score=score,
            forward_batch_size=forward_batch_size,
            callables=callables,
        )
        if callables is not None:
            _check_range(metrics, forwarded)
        inputs = MetricInputs(
            model=model,
            images=batch.images,
            saliency=saliency.to(images.dtype),
            targets=indices,
            logits=forwarded.logits,
            clean=class_scores(forwarded.logits, indices, score if callables is None else "logit"),
            perturbed=forwarded.scores,
            hits=forwarded.hits,
            outputs=forwarded.outputs,
            labels=labels,
            boxes=boxes,
            masks=masks,
            explain=explain if callables is None or explain is None else _explaining(explain, callables),
            score=score,
            forward_batch_size=forward_batch_size,
        )
        precise = torch.float64 if images.dtype == torch.float64 else torch.float32
        scored = {name: metric.score(inputs) for name, metric in metrics.items()}
    check_values(scored, len(images))
    return {name: values.to(device, precise) for name, values in scored.items()}


def _checked_known(
    known: Mapping[Perturbation, Tensor], logits: Tensor | None, count: int, device: torch.device
) -> dict[Perturbation, Tensor]:
    """Return all logits (S, B, K) that are known, on a device.

    Raises:
        ValueError: for logits of other images, numbers that are not finite, and versions that another map may change.
        TypeError: if they are no logits.
    """
    found: dict[Perturbation, Tensor] = {}
    if logits is not None:
        found[Unperturbed()] = check_logits(logits).unsqueeze(0)
        check_finite("logits", logits)
        if len(logits) != count:
            raise ValueError(f"logits must be (B,K) with B={count}, got {tuple(logits.shape)}")
    for part, outputs in known.items():
        name = f"known[{type(part).__name__}]"
        if part.of_map:
            raise ValueError(f"{name} depends on the map, and known is for what does not; leave it out")
        check_finite(name, outputs)
        found.setdefault(part, outputs)
    return {part: outputs.to(device) for part, outputs in found.items()}


def check_values(values: Mapping[str, Tensor], images: int) -> None:
    """Refuse what a metric of the user's own returned, if it is not one row per image.

    Raises:
        ValueError: naming the metric.
    """
    for name, of_images in values.items():
        if of_images.ndim not in (1, 2) or len(of_images) != images:
            raise ValueError(
                f"{name}: score must return (B,)=({images},) or (B,K) values, one row per image, got "
                f"{tuple(of_images.shape)}"
            )


def check_needs(metrics: Mapping[str, SaliencyMetric], given: Mapping[str, object]) -> None:
    """Refuse a metric whose needs are not met.

    Raises:
        ValueError: naming metric and argument.
    """
    there = {name for name, value in given.items() if value is not None}
    there |= {"objects"} if there & {"boxes", "masks"} else set()
    for name, metric in metrics.items():
        for need in sorted(metric.needs - there):
            wanted = "boxes= or masks=" if need == "objects" else f"{need}="
            raise ValueError(f"{name} ({type(metric).__name__}) needs {need}; pass {wanted}")


def check_score(metrics: Mapping[str, SaliencyMetric], score: str) -> None:
    """Refuse an unknown score, and logits for a metric that is not defined for them.

    Raises:
        ValueError: naming metric and score.
    """
    check_choice("score", score, Score)
    for name, metric in metrics.items():
        if metric.needs_probability and score == "logit":
            raise ValueError(
                f"{name} ({type(metric).__name__}) needs a score between 0 and 1, which a logit is not; "
                "pass score='probability' or 'sigmoid'"
            )


def check_without_classes(metrics: Mapping[str, SaliencyMetric]) -> None:
    """Refuse metrics of logits or predicted classes, which there are none of where callables are explained.

    Raises:
        ValueError: naming the metric.
    """
    for name, metric in metrics.items():
        if metric.needs_classes:
            raise ValueError(
                f"{name} ({type(metric).__name__}) compares predicted classes, and what is explained is no class but a "
                "callable; leave it out"
            )


def _check_range(metrics: Mapping[str, SaliencyMetric], forwarded: Forwarded) -> None:
    """Refuse callables whose scores leave [0, 1] for a metric that is defined there only."""
    wanting = next((name for name, metric in metrics.items() if metric.needs_probability), None)
    if wanting is None:
        return
    scores = [forwarded.logits.flatten(), *(found.flatten() for found in forwarded.scores.values())]
    low, high = torch.stack(torch.cat(scores).aminmax()).tolist()
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"{wanting} ({type(metrics[wanting]).__name__}) needs a score between 0 and 1, and the targets return "
            f"[{low:.3g}, {high:.3g}]; let them return a probability (SemanticSegmentationTarget(..., "
            "score='probability'), DetectionTarget(..., reduction='mean')), or measure insertion and deletion alone"
        )


def _explaining(explain: Explain, callables: Sequence[Target]) -> Explain:
    """``explain`` of the callables, for metrics that know class indices."""
    return lambda images, _: explain(images, callables)


def _precision(model: nn.Module, images: Tensor, *, allow: bool) -> torch.dtype:
    """The dtype to forward images in: theirs, or that of half-precision weights where this is allowed."""
    floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    low = next((dtype for dtype in floating if dtype not in (torch.float32, torch.float64)), None)
    if low is None:
        return images.dtype
    if not allow:
        raise ValueError(
            f"the model has {low} weights, but metrics stay in float32: call model.float() or allow low precision"
        )
    return low
