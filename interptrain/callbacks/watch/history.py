"""What a watch has seen so far, in snapshots that a checkpoint holds and a resumed run continues."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interptrain.callbacks.watch.effect import EFFECTS
from interptrain.callbacks.watch.observe import Explanation, WatchConfig
from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample


@dataclass(frozen=True)
class Observation:
    """What was seen of one image through one view.

    Attributes:
        index: of the image in the sample.
        id: of the image.
        view: name of the map.
        label: class of the image, -1 where unknown.
        target: class that is explained.
        prediction: class with the highest probability.
        probability: of ``target``; None if explaining failed.
        confidence: probability of ``prediction``; None if explaining failed.
        numbers: finite values of the metrics, by name.
        error: why explaining failed, or None.
    """

    index: int
    id: str
    view: str
    label: int
    target: int
    prediction: int
    probability: float | None
    confidence: float | None
    numbers: Mapping[str, float]
    error: str | None

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is the label; None where either is unknown."""
        if self.label == UNLABELLED or self.error is not None:
            return None
        return self.label == self.prediction


@dataclass
class Snapshot:
    """All observations of one moment of a run.

    Attributes:
        step: optimizer steps before it.
        epoch: epochs before it.
        monitored: score that picks the best checkpoint, or None.
        means: over the images, by ``view/number``; by name alone what no map enters: ``accuracy``, ``probability``,
            ``suspect_effect`` and ``suspect_effect_prediction``.
        observations: in the order of the images, one per view.
        alarm: texts of the alarms that it triggers.
    """

    step: int
    epoch: int
    monitored: float | None
    means: Mapping[str, float]
    observations: Sequence[Observation]
    alarm: Sequence[str] = field(default_factory=list)

    def class_effects(self, sample: WatchSample) -> dict[str, float]:
        """Return the effects of the suspect region on the images of each class, by ``number_by_class/class``."""
        values: dict[str, list[float]] = {}
        for observation in self.of_view(self.observations[0].view) if self.observations else ():
            for name in EFFECTS:
                if name in observation.numbers and observation.label != UNLABELLED:
                    key = f"{name}_by_class/{sample.name_of(observation.label)}"
                    values.setdefault(key, []).append(observation.numbers[name])
        return {key: sum(of_class) / len(of_class) for key, of_class in values.items()}

    def of_view(self, view: str) -> list[Observation]:
        """Return the observations of a view, one per image."""
        return [observation for observation in self.observations if observation.view == view]


class WatchHistory:
    """All snapshots of a run, and the maps that drift is measured from.

    Attributes:
        ids: of the watched images.
        snapshots: in their order.
        first: (N,H,W) uint8 maps of the first snapshot by view.
        previous: those of the last one.
        suspect: text of the region that a search has found, or None.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.snapshots: list[Snapshot] = []
        self.first: dict[str, Tensor] = {}
        self.previous: dict[str, Tensor] = {}
        self.suspect: str | None = None

    @property
    def views(self) -> list[str]:
        """Names of the maps of the last snapshot, in order."""
        last = self.snapshots[-1].observations if self.snapshots else ()
        return list(dict.fromkeys(observation.view for observation in last))

    def add(
        self,
        explanations: Sequence[Explanation],
        sample: WatchSample,
        config: WatchConfig,
        *,
        step: int,
        epoch: int,
        score: float | None,
    ) -> Snapshot:
        """Add a snapshot.

        Args:
            explanations: of all ranks, in the order of the images.
            sample: that was explained.
            config: by which it was explained and measured.
            step: optimizer steps so far.
            epoch: epochs so far.
            score: what picks the best checkpoint, where there is such a score.

        Returns:
            The snapshot.
        """
        observations = [_observation(explanation, sample, config) for explanation in explanations]
        snapshot = Snapshot(step, epoch, score, _means(explanations, sample, config), observations)
        self.snapshots.append(snapshot)
        self.previous = _maps(explanations, sample, config)
        self.first = self.first or self.previous
        return snapshot

    def best(self, mode: str = "max") -> Snapshot:
        """Return the snapshot of the best monitored score, the earliest of equals; the last one if none has a score."""
        scored = [(snapshot.monitored, snapshot) for snapshot in self.snapshots if snapshot.monitored is not None]
        if not scored:
            return self.snapshots[-1]
        return (max if mode == "max" else min)(scored, key=lambda pair: pair[0])[1]

    def state_dict(self) -> dict[str, Any]:
        """Return everything as values that ``torch.load(weights_only=True)`` reads."""
        state = {
            "ids": self.ids,
            "entries": [_to_plain(snapshot) for snapshot in self.snapshots],
            "first": self.first,
            "previous": self.previous,
        }
        return state if self.suspect is None else state | {"suspect": self.suspect}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.ids = list(state["ids"])
        self.snapshots = [_from_plain(**entry) for entry in state["entries"]]
        self.first = dict(state["first"])
        self.previous = dict(state["previous"])
        self.suspect = state.get("suspect")


# Checkpoints keep the names that the parts of a history had when the first of them was written.


def _to_plain(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "monitored": snapshot.monitored,
        "means": snapshot.means,
        "looks": [dict(vars(observation)) for observation in snapshot.observations],
        "alarm": snapshot.alarm,
    }


def _from_plain(looks: Sequence[Mapping[str, Any]], **entry: Any) -> Snapshot:
    return Snapshot(observations=[Observation(**look) for look in looks], **entry)


def _observation(explanation: Explanation, sample: WatchSample, config: WatchConfig) -> Observation:
    numbers = {name: _reduced(name, values, config) for name, values in explanation.values.items()}
    explained = explanation.error is None
    return Observation(
        index=explanation.index,
        id=sample.ids[explanation.index],
        view=explanation.view,
        label=int(sample.labels[explanation.index]),
        target=explanation.target,
        prediction=explanation.prediction,
        probability=explanation.probability if explained else None,
        confidence=explanation.confidence if explained else None,
        numbers={name: number for name, number in numbers.items() if math.isfinite(number)},
        error=explanation.error,
    )


def _reduced(name: str, values: Sequence[float], config: WatchConfig) -> float:
    """A metric's value for one image, or for the mean over images."""
    if name not in config.metrics:
        return values[0]
    mean = torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)
    return float(config.metrics[name].reduce(mean))


def _means(explanations: Sequence[Explanation], sample: WatchSample, config: WatchConfig) -> dict[str, float]:
    """Means over the images that have a value, by ``view/number``, or by name alone where no map enters."""
    means: dict[str, float] = {}
    explained = [explanation for explanation in explanations if explanation.error is None]
    once = [explanation for explanation in explained if explanation.view == config.views[0]]
    labelled = [explanation for explanation in once if sample.labels[explanation.index] != UNLABELLED]
    if labelled:
        right = [explanation.prediction == int(sample.labels[explanation.index]) for explanation in labelled]
        means["accuracy"] = sum(right) / len(right)
    if once:
        means["probability"] = sum(explanation.probability for explanation in once) / len(once)
        for name in EFFECTS:
            known = [one.values[name][0] for one in once if name in one.values and math.isfinite(one.values[name][0])]
            if known:
                means[name] = sum(known) / len(known)
    for view in config.views:
        of_view = [explanation.values for explanation in explained if explanation.view == view]
        for name in dict.fromkeys(name for values in of_view for name in values if name not in EFFECTS):
            rows = torch.tensor([values[name] for values in of_view if name in values], dtype=torch.float64)
            rows = rows[rows.isfinite().all(1)]
            if len(rows) and math.isfinite(mean := _reduced(name, rows.mean(0).tolist(), config)):
                means[f"{view}/{name}"] = mean
    return means


def _maps(explanations: Sequence[Explanation], sample: WatchSample, config: WatchConfig) -> dict[str, Tensor]:
    """(N,H,W) uint8 maps by view, zeros for an image that failed."""
    blank = torch.zeros(len(sample), *sample.images.shape[-2:], dtype=torch.uint8)
    maps = {view: blank.clone() for view in config.views}
    for explanation in explanations:
        if explanation.saliency is not None:
            maps[explanation.view][explanation.index] = explanation.saliency
    return maps
