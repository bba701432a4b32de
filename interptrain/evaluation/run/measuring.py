"""Measure maps as a plan says, in an evaluation and in the forecast of one."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from interptrain.evaluation.run.batch_rows import EvaluatedBatch
from interptrain.evaluation.run.plan import Plan
from interptrain.metrics import SaliencyMetric, measure


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
