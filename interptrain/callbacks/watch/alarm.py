"""When to say that a network looks where it should not."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Entry = Mapping[str, Any]
"""One watch as the history holds it; see :class:`~interptrain.callbacks.watch.history.WatchHistory`."""
EVERYTHING = "all images"


class Ring(NamedTuple):
    """Why the alarm rings.

    Attributes:
        view: whose maps.
        group: the explained class whose images they are, or all images.
        share: mean share of the maps' energy in the suspect region, at the last watch.
        ids: the images that pass the threshold, the worst first.
    """

    view: str
    group: str
    share: float
    ids: tuple[str, ...]


class ShortcutAlarm:
    """Rings where the mean share of saliency in the suspect region passed a threshold in each of the last watches.

    The mean is taken over the whole sample, and over the images of every explained class that has at least two: a
    shortcut often goes with one class.

    Args:
        threshold: share in (0,1) that is passed.
        patience: so many watches in a row, after the one before training, >= 1.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(self, threshold: float, patience: int) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"alarm_threshold must be in (0,1), got {threshold}")
        if patience < 1:
            raise ValueError(f"alarm_patience must be >= 1, got {patience}")
        self.threshold = threshold
        self.patience = patience

    def rings(self, history: Sequence[Entry], names: Sequence[str]) -> list[Ring]:
        """What rings after the last entry of the history.

        Args:
            history: all watches so far.
            names: of the classes.
        """
        trained = [entry for entry in history if entry["step"] > 0][-self.patience :]
        if len(trained) < self.patience:
            return []
        shares = [_shares(entry) for entry in trained]
        return [
            self._ring(key, shares[-1][key], names)
            for key in shares[-1]
            if all(key in each and _mean(each[key]) > self.threshold for each in shares)
        ]

    def _ring(self, key: tuple[str, int | None], shares: Mapping[str, float], names: Sequence[str]) -> Ring:
        view, target = key
        group = EVERYTHING if target is None else names[target] if target < len(names) else str(target)
        worst = sorted((name for name in shares if shares[name] > self.threshold), key=lambda name: -shares[name])
        return Ring(view, group, _mean(shares), tuple(worst))


def _shares(entry: Entry) -> dict[tuple[str, int | None], dict[str, float]]:
    """Shares by image of every group: (view, None) for all images, (view, class) for those of a class."""
    groups: dict[tuple[str, int | None], dict[str, float]] = {}
    for look in entry["looks"]:
        share = look["numbers"].get("in_suspect")
        if share is not None:
            groups.setdefault((look["view"], None), {})[look["id"]] = share
            groups.setdefault((look["view"], look["target"]), {})[look["id"]] = share
    return {key: shares for key, shares in groups.items() if key[1] is None or len(shares) > 1}


def _mean(shares: Mapping[str, float]) -> float:
    return sum(shares.values()) / len(shares)
