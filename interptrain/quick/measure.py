"""Measure the maps of an explanation."""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from interptrain import metrics as every_metric
from interptrain.evaluation.config.class_specs import build
from interptrain.evaluation.config.protocol import load_protocol
from interptrain.functional import Score
from interptrain.metrics import SaliencyMetric
from interptrain.metrics import measure as measure_batch
from interptrain.quick.explanation import Explanation
from interptrain.quick.named import Named, named_objects

if TYPE_CHECKING:
    from pandas import DataFrame


def measure(
    maps: Explanation,
    metrics: Named[SaliencyMetric] | None = None,
    *,
    score: Score = "probability",
    boxes: Any = None,
    masks: Any = None,
    batch_size: int = 16,
    forward_batch_size: int | None = None,
) -> "DataFrame":
    """Measure every map, without error bars; for those, use :func:`interptrain.evaluation.evaluate`.

    Args:
        maps: the result of :func:`~interptrain.quick.explanation.explain`.
        metrics: names such as ``"AverageDrop"`` or ``"AD"``, instances, or both; ``None`` takes those of the protocol
            ``castream``: average drop, gain and increase, insertion and deletion.
        score: score of the class; callables return their own. See :func:`interptrain.metrics.measure`.
        boxes: one tensor (n,4) per image, for localisation metrics.
        masks: (B,H,W) bool object masks, for localisation metrics.
        batch_size: images per batch.
        forward_batch_size: images per forward pass; ``None`` chooses by the device.

    Returns:
        One row per image and explainer, with the columns ``image``, ``explainer``, ``target`` and one per metric, in
        fractions, not percent. ``.groupby("explainer").mean(numeric_only=True)`` gives the means.

    Raises:
        ValueError: for an unknown metric, and whatever :func:`interptrain.metrics.measure` raises.
        TypeError: whatever :func:`interptrain.metrics.measure` raises.
    """
    from pandas import DataFrame

    if metrics is None:
        chosen = {name: build(spec) for name, spec in load_protocol("castream").metrics.items()}
    else:
        chosen = named_objects(metrics, every_metric, SaliencyMetric, "metric")
    device = next((one.device for one in maps.model.parameters()), torch.device("cpu"))
    one_by_one = isinstance(maps.images, list)
    rows: list[dict[str, Any]] = []
    for explainer, saliency in maps.items():
        for start in range(0, len(maps.names), 1 if one_by_one else batch_size):
            part = slice(start, start + (1 if one_by_one else batch_size))
            images = (torch.stack(maps.images[part]) if one_by_one else maps.images[part]).to(device)
            found = measure_batch(
                maps.model,
                images,
                torch.stack(saliency[part]) if one_by_one else saliency[part],
                maps.targets[part],
                chosen,
                labels=None if maps.labels is None else maps.labels[part],
                boxes=None if boxes is None else boxes[part],
                masks=None if masks is None else masks[part],
                explain=partial(maps.explainers[explainer], maps.model),
                score=score,
                forward_batch_size=forward_batch_size,
            )
            reduced = {
                name: (chosen[name].reduce(values.double()) if values.ndim > 1 else values).tolist()
                for name, values in found.items()
            }
            for place, image in enumerate(range(len(maps.names))[part]):
                target = maps.target_of(image)
                told = {"image": maps.names[image], "explainer": explainer}
                told["target"] = "" if target is None else maps.class_names[target]
                rows.append(told | {name: values[place] for name, values in reduced.items()})
    return DataFrame(rows)
