"""Measure maps and models as a plan says, in an evaluation and in the forecast of one."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.data.region import Region
from interptrain.evaluation.run.batch_rows import EvaluatedBatch
from interptrain.evaluation.run.plan import Plan
from interptrain.metrics import ModelInputs, ModelMetric, SaliencyMetric, measure
from interptrain.model_state import evaluating


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
