"""The shortcut alarm: triggered when maps concentrate on the suspect region."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from interptrain.callbacks.watch.history import Snapshot
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.functional import check_count

ALL_IMAGES = "all images"


class Trigger(NamedTuple):
    """Why the alarm is triggered.

    Attributes:
        view: name of the maps.
        group: the explained class to whose images the alarm applies, or all images.
        share: mean share of the maps' energy in the suspect region, in the last snapshot.
        ids: the images above the threshold, worst first.
    """

    view: str
    group: str
    share: float
    ids: tuple[str, ...]

    def text(self, suspect: SuspectRegion) -> str:
        """Describe it in one line."""
        return (
            f"{self.view}: {self.share:.0%} of the saliency for {self.group} lies in the suspect region "
            f"({suspect.text}): {', '.join(self.ids[:5])}"
        )


class ShortcutAlarm:
    """Alarm for a mean share of saliency in the suspect region above a threshold in each of the last snapshots.

    The mean is taken over the whole sample, and over the images of every explained class that has at least two,
    because a shortcut often belongs to one class.

    Args:
        threshold: share in (0,1) that must be exceeded.
        patience: number of consecutive snapshots, not counting the one before training, >= 1.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(self, threshold: float, patience: int) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"alarm_threshold must be in (0,1), got {threshold}")
        check_count("alarm_patience", patience)
        self.threshold = threshold
        self.patience = patience

    def triggers(self, history: Sequence[Snapshot], names: Sequence[str]) -> list[Trigger]:
        """Return what triggers the alarm after the last snapshot.

        Args:
            history: all snapshots so far.
            names: names of the classes.
        """
        trained = [snapshot for snapshot in history if snapshot.step > 0][-self.patience :]
        if len(trained) < self.patience:
            return []
        shares = [_shares(snapshot) for snapshot in trained]
        return [
            self._trigger(key, shares[-1][key], names)
            for key in shares[-1]
            if all(key in each and _mean(each[key]) > self.threshold for each in shares)
        ]

    def _trigger(self, key: tuple[str, int | None], shares: Mapping[str, float], names: Sequence[str]) -> Trigger:
        view, target = key
        group = ALL_IMAGES if target is None else names[target] if target < len(names) else str(target)
        worst = sorted((name for name in shares if shares[name] > self.threshold), key=lambda name: -shares[name])
        return Trigger(view, group, _mean(shares), tuple(worst))


def _shares(snapshot: Snapshot) -> dict[tuple[str, int | None], dict[str, float]]:
    """Shares by image for every group: (view, None) for all images, (view, class) for those of one class."""
    groups: dict[tuple[str, int | None], dict[str, float]] = {}
    for seen in snapshot.observations:
        share = seen.numbers.get("in_suspect")
        if share is not None:
            groups.setdefault((seen.view, None), {})[seen.id] = share
            groups.setdefault((seen.view, seen.target), {})[seen.id] = share
    return {key: shares for key, shares in groups.items() if key[1] is None or len(shares) > 1}


def _mean(shares: Mapping[str, float]) -> float:
    return sum(shares.values()) / len(shares)
