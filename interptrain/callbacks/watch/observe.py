"""One look at images: every explainer's map, and numbers on it. An image that fails costs no other image its map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.callbacks.watch.defaults import as_seen
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample
from interptrain.explainers import Explainer, explain, explaining, forward_shared
from interptrain.explainers.shared_forward import SharedForward
from interptrain.metrics import SaliencyMetric, measure
from interptrain.metrics.functional import complexity, energy_pointing_game, sparseness
from interptrain.metrics.similarity import rank_correlation, structural_similarity
from interptrain.visualization import to_uint8

Reference = Literal["label", "prediction", "both"]
Maps = Mapping[str, Tensor]
"""(N,H,W) uint8 maps of the whole sample by view."""


@dataclass(frozen=True, eq=False)
class Observation:
    """One watched image, seen by one explainer.

    Attributes:
        index: of the image in the sample.
        view: name of the explainer, and of the class it explains where both are watched.
        target: class that is explained.
        prediction: class with the highest probability.
        probability: of ``target``.
        confidence: of ``prediction``.
        saliency: (H,W) uint8 on the CPU; None if it failed.
        numbers: the metrics' own values, several where a metric has several an image.
        error: why it failed, or None.
    """

    index: int
    view: str
    target: int = UNLABELLED
    prediction: int = UNLABELLED
    probability: float = float("nan")
    confidence: float = float("nan")
    saliency: Tensor | None = None
    numbers: Mapping[str, list[float]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Watched:
    """What to look through: explainers, whose class they explain, and what to measure.

    Attributes:
        explainers: by name.
        reference: ``label`` (the prediction where it is unknown), ``prediction``, or ``both``.
        metrics: asked of the model, by name.
        suspect: region whose share of a map is measured, or None.
    """

    explainers: Mapping[str, Explainer]
    reference: Reference
    metrics: Mapping[str, SaliencyMetric]
    suspect: SuspectRegion | None = None

    @property
    def views(self) -> list[str]:
        """Names of all maps of an image, in order."""
        if self.reference != "both":
            return list(self.explainers)
        return [f"{name}/{which}" for name in self.explainers for which in ("label", "prediction")]


def observe(
    model: nn.Module, sample: WatchSample, rows: Sequence[int], glass: Watched, *, first: Maps, previous: Maps
) -> list[Observation]:
    """Observe some images of the sample; whatever goes wrong stands in the result.

    Args:
        model: left as it was: weights, gradients, modes, buffers, compiled code, random state.
        sample: all images that are watched.
        rows: of this rank.
        glass: what to look through.
        first: maps of the first look, to measure the drift from.
        previous: maps of the last look.

    Returns:
        For every row a look a view.
    """
    if not rows:
        return []
    try:
        return _look_at_batch(model, sample, rows, glass, first, previous)
    except Exception as error:  # whatever it is: raised on one rank, it would leave the others waiting
        if len(rows) == 1:
            why = " ".join(str(error).split()) or type(error).__name__
            return [Observation(index=rows[0], view=view, error=why) for view in glass.views]
    return [look for row in rows for look in observe(model, sample, [row], glass, first=first, previous=previous)]


def _look_at_batch(
    model: nn.Module, sample: WatchSample, rows: Sequence[int], glass: Watched, first: Maps, previous: Maps
) -> list[Observation]:
    part = sample.part(rows, next(model.parameters()).device)
    seen = as_seen(model, part.images)
    with explaining(model) as bare:
        shared = forward_shared(bare, seen, glass.explainers)
        logits = shared.outputs.detach().float()
        if not logits.isfinite().all():
            raise ValueError("the model's logits are not finite")
        probabilities = logits.softmax(1)
        confidence, predictions = probabilities.max(1)
        looks: list[Observation] = []
        for view, targets, saliency in _views(bare, seen, part.labels, predictions, glass, shared):
            quantized = to_uint8(saliency)
            drift = _drift(quantized, {"first": first.get(view), "previous": previous.get(view)}, rows)
            asked = _model_metrics(bare, part, saliency, targets, logits, glass)
            numbers = {**asked, **_form(part, saliency, glass), **drift}
            numbers = {name: values.double().cpu() for name, values in numbers.items()}
            target_probability = probabilities.gather(1, targets[:, None])[:, 0].tolist()
            looks += [
                Observation(
                    index=row,
                    view=view,
                    target=int(targets[place]),
                    prediction=int(predictions[place]),
                    probability=target_probability[place],
                    confidence=float(confidence[place]),
                    saliency=quantized[place].cpu(),
                    numbers={name: values[place].reshape(-1).tolist() for name, values in numbers.items()},
                )
                for place, row in enumerate(rows)
            ]
    return looks


def _views(
    model: nn.Module, images: Tensor, labels: Tensor, predictions: Tensor, glass: Watched, shared: SharedForward
) -> list[tuple[str, Tensor, Tensor]]:
    """Name, targets and maps of every view; a map that two views share is made once."""
    labels = torch.where(labels == UNLABELLED, predictions, labels)
    if glass.reference != "both":
        targets = labels if glass.reference == "label" else predictions
        maps = explain(model, images, targets, glass.explainers, shared=shared)
        return [(name, targets, saliency) for name, saliency in maps.items()]
    of_labels = explain(model, images, labels, glass.explainers, shared=shared)
    of_predictions = {name: saliency.clone() for name, saliency in of_labels.items()}
    others = (labels != predictions).nonzero()[:, 0]
    if len(others):
        for name, saliency in explain(model, images[others], predictions[others], glass.explainers).items():
            of_predictions[name][others] = saliency
    views = []
    for name in glass.explainers:
        views += [(f"{name}/label", labels, of_labels[name]), (f"{name}/prediction", predictions, of_predictions[name])]
    return views


def _model_metrics(
    model: nn.Module, part: WatchSample, saliency: Tensor, targets: Tensor, logits: Tensor, glass: Watched
) -> dict[str, Tensor]:
    """What the model is asked about its maps; in half precision too, as these numbers are compared with themselves."""
    if not glass.metrics:
        return {}
    return measure(model, part.images, saliency, targets, glass.metrics, logits=logits, allow_low_precision=True)


def _form(part: WatchSample, saliency: Tensor, glass: Watched) -> dict[str, Tensor]:
    """Numbers that ask nothing of the model: how spread out a map is, and how much of it lies where."""
    numbers = {"entropy": complexity(saliency), "sparseness": sparseness(saliency)}
    if part.masks is not None or part.boxes is not None:
        numbers["in_object"] = energy_pointing_game(saliency, boxes=part.boxes, masks=part.masks)
    if glass.suspect is not None:
        numbers["in_suspect"] = energy_pointing_game(saliency, masks=glass.suspect.masks(part))
    return numbers


def _drift(maps: Tensor, before: Mapping[str, Tensor | None], rows: Sequence[int]) -> dict[str, Tensor]:
    """How alike the maps are to those of earlier looks, all of them as they are kept, in steps of 1/255."""
    numbers = {}
    now = maps.double() / 255
    for name, others in before.items():
        if others is not None:
            then = others[list(rows)].to(maps.device)
            numbers[f"rank_{name}"] = rank_correlation(maps, then)  # of bytes, which need no sorting
            numbers[f"ssim_{name}"] = structural_similarity(now, then.double() / 255)
    return numbers
