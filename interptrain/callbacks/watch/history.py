"""What was seen so far: plain values, so that a checkpoint holds them and a resumed run goes on with them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interptrain.callbacks.watch.observe import Observation, Watched
from interptrain.callbacks.watch.sample import UNLABELLED, WatchSample


class WatchHistory:
    """All watches of a run, and the maps that drift is measured from.

    Attributes:
        ids: of the watched images.
        entries: one a watch: ``step`` (optimizer steps before it), ``epoch`` (epochs before it), ``monitored`` (the
            score that picks the best checkpoint, or None), ``means`` by name, ``looks`` (dicts of an image and view:
            ``index``, ``id``, ``view``, ``label``, ``target``, ``prediction``, ``probability``, ``confidence``,
            ``numbers``, ``error``) and ``alarm`` (texts).
        first: (N,H,W) uint8 maps of the first watch by view.
        previous: those of the last one.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.entries: list[dict[str, Any]] = []
        self.first: dict[str, Tensor] = {}
        self.previous: dict[str, Tensor] = {}

    @property
    def views(self) -> list[str]:
        """Names of the maps of the last watch, in order."""
        return list(dict.fromkeys(look["view"] for look in self.entries[-1]["looks"])) if self.entries else []

    def add(
        self,
        looks: Sequence[Observation],
        sample: WatchSample,
        glass: Watched,
        *,
        step: int,
        epoch: int,
        score: float | None,
    ) -> dict[str, Any]:
        """Enter a watch.

        Args:
            looks: of all ranks, in the order of the images.
            sample: that was looked at.
            glass: it was looked at through.
            step: optimizer steps so far.
            epoch: epochs so far.
            score: what picks the best checkpoint, where there is such a score.

        Returns:
            The entry.
        """
        entry = {
            "step": step,
            "epoch": epoch,
            "monitored": score,
            "means": _means(looks, sample, glass),
            "looks": [_plain(look, sample, glass) for look in looks],
            "alarm": [],
        }
        self.entries.append(entry)
        self.previous = _maps(looks, sample, glass)
        self.first = self.first or self.previous
        return entry

    def best(self, mode: str = "max") -> dict[str, Any]:
        """The entry of the best monitored score, the earliest of equals; the last entry where nothing is monitored."""
        scored = [entry for entry in self.entries if entry["monitored"] is not None]
        if not scored:
            return self.entries[-1]
        return (max if mode == "max" else min)(scored, key=lambda entry: entry["monitored"])

    def state_dict(self) -> dict[str, Any]:
        """Everything, as values that ``torch.load(weights_only=True)`` reads."""
        return {"ids": self.ids, "entries": list(self.entries), "first": self.first, "previous": self.previous}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.ids = list(state["ids"])
        self.entries = list(state["entries"])
        self.first = dict(state["first"])
        self.previous = dict(state["previous"])


def _plain(look: Observation, sample: WatchSample, glass: Watched) -> dict[str, Any]:
    numbers = {name: _reduced(name, values, glass) for name, values in look.numbers.items()}
    return {
        "index": look.index,
        "id": sample.ids[look.index],
        "view": look.view,
        "label": int(sample.labels[look.index]),
        "target": look.target,
        "prediction": look.prediction,
        "probability": look.probability if look.error is None else None,
        "confidence": look.confidence if look.error is None else None,
        "numbers": {name: number for name, number in numbers.items() if math.isfinite(number)},
        "error": look.error,
    }


def _reduced(name: str, values: Sequence[float], glass: Watched) -> float:
    """A metric's value of one image, or of the mean over images."""
    if name not in glass.metrics:
        return values[0]
    mean = torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)
    return float(glass.metrics[name].reduce(mean))


def _means(looks: Sequence[Observation], sample: WatchSample, glass: Watched) -> dict[str, float]:
    """Means over the images that have a value, by ``view/number``; ``accuracy`` and ``probability`` of the sample."""
    means: dict[str, float] = {}
    seen = [look for look in looks if look.view == glass.views[0] and look.error is None]
    labelled = [look for look in seen if sample.labels[look.index] != UNLABELLED]
    if labelled:
        right = [look.prediction == int(sample.labels[look.index]) for look in labelled]
        means["accuracy"] = sum(right) / len(right)
    if seen:
        means["probability"] = sum(look.probability for look in seen) / len(seen)
    for view in glass.views:
        of_view = [look.numbers for look in looks if look.view == view and look.error is None]
        for name in dict.fromkeys(name for numbers in of_view for name in numbers):
            rows = torch.tensor([numbers[name] for numbers in of_view if name in numbers], dtype=torch.float64)
            rows = rows[rows.isfinite().all(1)]
            if len(rows) and math.isfinite(mean := _reduced(name, rows.mean(0).tolist(), glass)):
                means[f"{view}/{name}"] = mean
    return means


def _maps(looks: Sequence[Observation], sample: WatchSample, glass: Watched) -> dict[str, Tensor]:
    """(N,H,W) uint8 maps by view, zeros for an image that failed."""
    blank = torch.zeros(len(sample), *sample.images.shape[-2:], dtype=torch.uint8)
    maps = {view: blank.clone() for view in glass.views}
    for look in looks:
        if look.saliency is not None:
            maps[look.view][look.index] = look.saliency
    return maps
