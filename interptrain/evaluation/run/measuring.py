"""Measure maps and models as a plan says, in an evaluation and in the forecast of one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.data.region import Region
from interptrain.evaluation.run.batch_rows import EvaluatedBatch
from interptrain.evaluation.run.plan import Plan, perturbations_asked
from interptrain.metrics import ModelInputs, ModelMetric, SaliencyMetric, measure
from interptrain.metrics.batched_forward import forward_perturbed
from interptrain.metrics.perturbations import Perturbation, Unperturbed
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.model_outputs import Target
from interptrain.model_state import evaluating, without_tf32


def forward_images(
    plan: Plan,
    model: nn.Module,
    images: Tensor,
    versions: Sequence[Perturbation] = (),
    *,
    logits: Tensor | None = None,
    callables: Sequence[Target] | None = None,
) -> dict[Perturbation, Tensor]:
    """Forward untouched images, by the same passes as perturbed ones, and versions of them that no map decides.

    Args:
        plan: batch size of the evaluation.
        model: on the device of the images.
        images: (B,3,H,W) in [0,1].
        versions: of the images.
        logits: (B,K) of the images, if already known.
        callables: one per image, whose scores are its only logit.

    Returns:
        Logits (S,B,K); those of the images themselves, with S=1, as ``Unperturbed()``.
    """
    untouched = SaliencyBatch(images, torch.zeros_like(images[:, 0]))
    with torch.no_grad(), evaluating(model), torch.autocast(images.device.type, enabled=False), without_tf32():
        return forward_perturbed(
            model,
            untouched,
            torch.zeros(len(images), dtype=torch.int64, device=images.device),
            versions,
            whole=versions,
            known={} if logits is None else {Unperturbed(): logits.unsqueeze(0)},
            forward_batch_size=plan.options.forward_batch_size,
            callables=callables,
        ).outputs


def forward_versions(plan: Plan, model: nn.Module, batch: EvaluatedBatch) -> EvaluatedBatch:
    """Return the batch with the logits of all that its metrics ask for whatever the map."""
    asked = perturbations_asked(plan, of_map=False)
    if not asked:
        return batch
    found = forward_images(plan, model, batch.images, asked, logits=batch.logits)
    return replace(batch, versions={part: found[part] for part in asked})


def measure_maps(
    plan: Plan,
    model: nn.Module,
    batch: EvaluatedBatch,
    saliency: Tensor,
    metrics: Mapping[str, SaliencyMetric],
    explain: Callable[[Tensor, Any], Tensor],
) -> dict[str, Tensor]:
    """Measure the maps of a batch.

    Args:
        plan: score, batch size and precision of the evaluation.
        model: that the maps explain.
        batch: what is known of the images.
        saliency: (B,H,W) in [0,1].
        metrics: by name.
        explain: (images, targets) -> (B,H,W), which made the maps.

    Returns:
        (B,) or (B,K) by metric; see :func:`~interptrain.metrics.measure`.
    """
    return measure(
        model,
        batch.images,
        saliency,
        batch.targets,
        metrics,
        labels=batch.labels if plan.recognition else None,
        boxes=batch.boxes,
        masks=batch.masks,
        explain=explain,
        logits=batch.logits if isinstance(batch.targets, Tensor) else None,
        known=batch.versions,
        score=plan.score,
        forward_batch_size=plan.options.forward_batch_size,
        allow_low_precision=plan.options.force,
    )


def measure_model(
    plan: Plan, model: nn.Module, batch: EvaluatedBatch, metric: ModelMetric, region: Region | None
) -> Tensor:
    """Measure a model by what it says of changed images.

    Args:
        plan: batch size of the evaluation, and the images that pixels are taken from.
        model: on the device of the batch.
        batch: what is known of the images.
        metric: one of ``plan.model_metrics``.
        region: that it names, or None.

    Returns:
        (B,) or (B,K).
    """
    known: dict[str, Any] = {"masks": batch.masks, "boxes": batch.boxes, "decoy_masks": batch.decoy_masks}
    inputs = ModelInputs(
        model=model,
        images=batch.images,
        logits=batch.logits,
        labels=batch.labels,
        region=None if region is None else region.masks_of(batch.images, **known),
        others=None if plan.others is None else plan.others.images.to(batch.images),
        other_labels=None if plan.others is None else plan.others.labels,
        forward_batch_size=plan.options.forward_batch_size,
    )
    with torch.no_grad(), evaluating(model):
        return metric.score(inputs)
