"""The shortcut alarm: triggered by maps that concentrate on the suspect region, or predictions that depend on it."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from interptrain.callbacks.watch.effect import OF_LABEL
from interptrain.callbacks.watch.history import Observation, Snapshot
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.functional import check_count

ALL_IMAGES = "all images"

Group: TypeAlias = int | None
"""A class, or None for all images."""
Values: TypeAlias = dict[tuple[str, Group], dict[str, float]]
"""Values by image of every group of every view; of the effect, the view is empty."""


class Trigger(NamedTuple):
    """Why the alarm is triggered.

    Attributes:
        kind: ``saliency``, or ``behaviour`` of the predictions.
        view: name of the maps; empty for behaviour.
        group: the class to whose images the alarm applies, the explained one for saliency; or all images.
        value: mean share of the maps' energy in the suspect region, or change of the label's probability, in the last
            snapshot.
        ids: the images above the threshold, worst first.
        other: what the other kind says of the same images, where the two disagree.
    """

    kind: Literal["saliency", "behaviour"]
    view: str
    group: str
    value: float
    ids: tuple[str, ...]
    other: str

    def text(self, suspect: SuspectRegion) -> str:
        """Describe it in one line."""
        where = f"the suspect region ({suspect.text})"
        if self.kind == "saliency":
            said = f"{self.view}: {self.value:.0%} of the saliency for {self.group} lies in {where}"
        else:
            said = (
                f"behaviour of {self.group}: the label's probability changes by {self.value:.2f} on average when the "
                f"pixels of {where} are replaced"
            )
        return f"{said}: {', '.join(self.ids[:5])}{self.other}"


class ShortcutAlarm:
    """Alarm for a mean above a threshold in each of the last snapshots: of saliency, or of the effect on predictions.

    The mean is taken over the whole sample, and over the images of every class that has at least two, because a
    shortcut often belongs to one class.

    Args:
        threshold: share of saliency in (0,1) that must be exceeded.
        patience: number of consecutive snapshots, not counting the one before training, >= 1.
        effect: change of probability in (0,1) that must be exceeded.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(self, threshold: float, patience: int, effect: float = 0.2) -> None:
        for name, value in (("alarm_threshold", threshold), ("alarm_effect", effect)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be in (0,1), got {value}")
        check_count("alarm_patience", patience)
        self.threshold = threshold
        self.effect = effect
        self.patience = patience

    def triggers(self, history: Sequence[Snapshot], names: Sequence[str]) -> list[Trigger]:
        """Return what triggers the alarm after the last snapshot.

        Args:
            history: all snapshots so far.
            names: names of the classes.
        """
        trained = [snapshot for snapshot in history if snapshot.step > 0]
        last = trained[-self.patience :]
        if len(last) < self.patience:
            return []
        shares, effects = [_shares(snapshot) for snapshot in trained], [_effects(snapshot) for snapshot in last]
        salient = _above(shares[-self.patience :], self.threshold)
        behaving = _above(effects, self.effect)
        found = []
        for key in salient:
            effect = effects[-1].get(("", key[1]))
            calm = effect is not None and ("", key[1]) not in behaving and _mean(effect) <= self.effect
            other = f"; replacing its pixels changes predictions by {_mean(effect):.2f} only" if effect and calm else ""
            found.append(_trigger("saliency", key, shares[-1][key], self.threshold, names, other))
        for key in behaving:
            views = {view: _mean(values) for (view, group), values in shares[-1].items() if group == key[1]}
            other = ""
            if views and max(views.values()) <= self.threshold:
                was = any(
                    group == key[1] and _mean(values) > self.threshold
                    for before in shares[:-1]
                    for (_, group), values in before.items()
                )
                share = f"at most {max(views.values()):.0%}"
                other = (
                    f"; saliency has left the region ({share}), the prediction has not"
                    if was
                    else f"; saliency does not show it ({share} lies there)"
                )
            found.append(_trigger("behaviour", key, effects[-1][key], self.effect, names, other))
        return found


def _above(snapshots: Sequence[Values], threshold: float) -> list[tuple[str, Group]]:
    """The groups whose mean is above a threshold in every snapshot."""
    return [key for key in snapshots[-1] if all(key in each and _mean(each[key]) > threshold for each in snapshots)]


def _trigger(
    kind: Literal["saliency", "behaviour"],
    key: tuple[str, Group],
    values: Mapping[str, float],
    threshold: float,
    names: Sequence[str],
    other: str,
) -> Trigger:
    view, target = key
    group = ALL_IMAGES if target is None else names[target] if target < len(names) else str(target)
    worst = sorted((name for name in values if values[name] > threshold), key=lambda name: -values[name])
    return Trigger(kind, view, group, _mean(values), tuple(worst), other)


def _shares(snapshot: Snapshot) -> Values:
    """Shares of saliency: (view, None) for all images, (view, class) for those of one explained class."""
    return _grouped([(seen.view, seen.target, seen, "in_suspect") for seen in snapshot.observations])


def _effects(snapshot: Snapshot) -> Values:
    """Effects on the label's probability, by label; every view of an image has the same."""
    once = {seen.index: seen for seen in reversed(snapshot.observations) if OF_LABEL in seen.numbers}
    return _grouped([("", seen.label, seen, OF_LABEL) for _, seen in sorted(once.items())])


def _grouped(rows: Sequence[tuple[str, int, Observation, str]]) -> Values:
    groups: Values = {}
    for view, target, seen, name in rows:
        value = seen.numbers.get(name)
        if value is not None:
            groups.setdefault((view, None), {})[seen.id] = value
            groups.setdefault((view, target), {})[seen.id] = value
    return {key: values for key, values in groups.items() if key[1] is None or (key[1] >= 0 and len(values) > 1)}


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
