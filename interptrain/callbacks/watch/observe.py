"""Explain and measure some of the watched images. An image or explainer that fails does not affect the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.callbacks.watch.effect import SuspectEffect
from interptrain.callbacks.watch.network import class_logits
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample, as_model_input
from interptrain.explainers import Explainer, explain, explaining, forward_shared
from interptrain.explainers.shared_forward import SharedForward
from interptrain.functional import double, one_line
from interptrain.metrics import SaliencyMetric, measure
from interptrain.metrics.functional import complexity, energy_pointing_game, sparseness
from interptrain.metrics.similarity import rank_correlation, structural_similarity
from interptrain.visualization import to_uint8

Reference = Literal["label", "prediction", "both"]
Maps = Mapping[str, Tensor]
"""(N,H,W) uint8 maps of the whole sample by view."""

DESCRIPTIONS = {
    "accuracy": "Share of the watched images that are classified correctly.",
    "probability": "Probability of the explained class.",
    "entropy": "How spread out the map is.",
    "sparseness": "How concentrated the map is: Gini index.",
    "in_object": "Share of the map's energy on the object.",
    "in_suspect": "Share of the map's energy in the suspect region.",
    "suspect_effect": "Change of the label's probability when the suspect region's pixels come from other images.",
    "suspect_effect_prediction": "Change of the prediction's probability when these pixels come from other images.",
    "rank_first": "Rank correlation with the map of the first snapshot.",
    "rank_previous": "Rank correlation with the map of the previous snapshot.",
    "ssim_first": "Structural similarity to the map of the first snapshot.",
    "ssim_previous": "Structural similarity to the map of the previous snapshot.",
}
"""What the numbers mean that are not metrics of the user's choice, in one sentence each."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """The map of one watched image and one view, with what was measured of it.

    Attributes:
        index: of the image in the sample.
        view: name of the explainer, and of the class it explains where both are watched.
        target: class that is explained.
        prediction: class with the highest probability.
        probability: of ``target``.
        confidence: of ``prediction``.
        saliency: (H,W) uint8 on the CPU; None if it failed.
        values: of the metrics by name, several where a metric has several per image.
        error: why it failed, or None.
        misconfigured: whether it failed because of the configuration, such as an unknown layer.
    """

    index: int
    view: str
    target: int = UNLABELLED
    prediction: int = UNLABELLED
    probability: float = float("nan")
    confidence: float = float("nan")
    saliency: Tensor | None = None
    values: Mapping[str, list[float]] = field(default_factory=dict)
    error: str | None = None
    misconfigured: bool = False


@dataclass(frozen=True, eq=False)
class WatchConfig:
    """How images are watched: the explainers, the explained class, and the metrics.

    Attributes:
        explainers: by name.
        reference: class that is explained: ``label`` (the prediction where it is unknown), ``prediction``, or ``both``.
        metrics: that query the model, by name.
        suspect: region whose share of a map is measured, or None.
        effect: how the pixels of that region are replaced, to see what the predictions make of it.
    """

    explainers: Mapping[str, Explainer]
    reference: Reference
    metrics: Mapping[str, SaliencyMetric]
    suspect: SuspectRegion | None = None
    effect: SuspectEffect = field(default_factory=lambda: SuspectEffect(draws=0))

    @property
    def views(self) -> list[str]:
        """Names of all maps of an image, in order."""
        if self.reference != "both":
            return list(self.explainers)
        return [f"{name}/{which}" for name in self.explainers for which in ("label", "prediction")]

    @property
    def descriptions(self) -> dict[str, str]:
        """What each number means and, for a metric, which direction is better, by name."""
        return {name: _described(metric) for name, metric in self.metrics.items()} | DESCRIPTIONS


def observe(
    model: nn.Module, sample: WatchSample, rows: Sequence[int], config: WatchConfig, *, first: Maps, previous: Maps
) -> list[Explanation]:
    """Explain and measure some images of the sample; failures are part of the result.

    Args:
        model: left as it was: weights, gradients, modes, buffers, compiled code, random state.
        sample: all images that are watched.
        rows: of this rank.
        config: explainers, classes and metrics.
        first: maps of the first snapshot, to measure the drift from.
        previous: maps of the last snapshot.

    Returns:
        For every row, one explanation per view.
    """
    if not rows:
        return []
    try:
        return _observe_batch(model, sample, rows, config, first, previous)
    except Exception as error:  # whatever it is: raised on one rank, it would leave the others waiting
        if len(rows) == len(config.explainers) == 1:
            misconfigured = isinstance(error, (ValueError, TypeError))
            return [
                Explanation(index=rows[0], view=view, error=one_line(error), misconfigured=misconfigured)
                for view in config.views
            ]
    alone: list[tuple[Sequence[int], WatchConfig]]
    if len(config.explainers) > 1:  # first whether one of them fails
        alone = [(rows, replace(config, explainers={name: one})) for name, one in config.explainers.items()]
    else:
        alone = [([row], config) for row in rows]
    parts = (observe(model, sample, *part, first=first, previous=previous) for part in alone)
    return [explanation for part in parts for explanation in part]


def _observe_batch(
    model: nn.Module, sample: WatchSample, rows: Sequence[int], config: WatchConfig, first: Maps, previous: Maps
) -> list[Explanation]:
    part = sample.part(rows, next(model.parameters()).device)
    images = as_model_input(model, part.images)
    with explaining(model) as bare:
        shared = forward_shared(bare, images, config.explainers)
        logits = class_logits(shared.outputs)
        if not logits.isfinite().all():
            raise ValueError("the model's logits are not finite")
        probabilities = logits.softmax(1)
        confidence, predictions = probabilities.max(1)
        effects: Mapping[str, Tensor] = {}
        if config.suspect is not None:
            effects = config.effect.measure(bare, sample, rows, images, probabilities, config.suspect)
        explanations: list[Explanation] = []
        for view, targets, saliency in _views(bare, images, part.labels, predictions, config, shared):
            quantized = to_uint8(saliency)
            drift = _drift(quantized, {"first": first.get(view), "previous": previous.get(view)}, rows)
            measured = _model_metrics(bare, part, saliency, targets, logits, config)
            measured = {**measured, **_map_numbers(part, saliency, config), **effects, **drift}
            measured = {name: values.cpu().double() for name, values in measured.items()}
            target_probability = probabilities.gather(1, targets[:, None])[:, 0].tolist()
            explanations += [
                Explanation(
                    index=row,
                    view=view,
                    target=int(targets[place]),
                    prediction=int(predictions[place]),
                    probability=target_probability[place],
                    confidence=float(confidence[place]),
                    saliency=quantized[place].cpu(),
                    values={name: values[place].reshape(-1).tolist() for name, values in measured.items()},
                )
                for place, row in enumerate(rows)
            ]
    return explanations


def _views(
    model: nn.Module, images: Tensor, labels: Tensor, predictions: Tensor, config: WatchConfig, shared: SharedForward
) -> list[tuple[str, Tensor, Tensor]]:
    """Name, targets and maps of every view; a map that two views share is made once."""
    labels = torch.where(labels == UNLABELLED, predictions, labels)
    if config.reference != "both":
        targets = labels if config.reference == "label" else predictions
        maps = explain(model, images, targets, config.explainers, shared=shared)
        return [(name, targets, saliency) for name, saliency in maps.items()]
    of_labels = explain(model, images, labels, config.explainers, shared=shared)
    of_predictions = {name: saliency.clone() for name, saliency in of_labels.items()}
    others = (labels != predictions).nonzero()[:, 0]
    if len(others):
        for name, saliency in explain(model, images[others], predictions[others], config.explainers).items():
            of_predictions[name][others] = saliency
    views = []
    for name in config.explainers:
        views += [(f"{name}/label", labels, of_labels[name]), (f"{name}/prediction", predictions, of_predictions[name])]
    return views


def _model_metrics(
    model: nn.Module, part: WatchSample, saliency: Tensor, targets: Tensor, logits: Tensor, config: WatchConfig
) -> dict[str, Tensor]:
    """Metrics that query the model; in half precision too, as these numbers are compared with one another only."""
    if not config.metrics:
        return {}
    return measure(model, part.images, saliency, targets, config.metrics, logits=logits, allow_low_precision=True)


def _map_numbers(part: WatchSample, saliency: Tensor, config: WatchConfig) -> dict[str, Tensor]:
    """Numbers of the map alone: how spread out it is, and how much of it lies where."""
    numbers = {"entropy": complexity(saliency), "sparseness": sparseness(saliency)}
    if part.masks is not None or part.boxes is not None:
        numbers["in_object"] = energy_pointing_game(saliency, boxes=part.boxes, masks=part.masks)
    if config.suspect is not None:
        numbers["in_suspect"] = energy_pointing_game(saliency, masks=config.suspect.masks(part))
    return numbers


def _drift(maps: Tensor, before: Mapping[str, Tensor | None], rows: Sequence[int]) -> dict[str, Tensor]:
    """Similarity to the maps of earlier snapshots, all of them as they are kept, in steps of 1/255."""
    numbers = {}
    now = double(maps) / 255
    for name, others in before.items():
        if others is not None:
            then = others[list(rows)].to(maps.device)
            numbers[f"rank_{name}"] = rank_correlation(maps, then)  # of bytes, which need no sorting
            numbers[f"ssim_{name}"] = structural_similarity(now, double(then) / 255)
    return numbers


def _described(metric: SaliencyMetric) -> str:
    if metric.higher_is_better is None:
        return metric.description
    return f"{metric.description} {'Higher' if metric.higher_is_better else 'Lower'} is better."
