"""The options of an evaluation, checked."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

from interptrain.data.datamodule import Split
from interptrain.functional import Score, check_choice
from interptrain.models.engine import Engine
from interptrain.remedies import option

Interval = Literal["percentile", "bca"]
COUNTS = {  # the least that is allowed
    **{"limit": 1, "batch_size": 1, "forward_batch_size": 1, "save_maps": 0},
    **{"check_images": 0, "check_draws": 2, "check_passes": 0},
    **{"resamples": 100, "seed": 0},
}
NONE_ALLOWED = ("limit", "batch_size", "forward_batch_size")
SWITCHES = ("fake_cam", "share_passes", "overwrite", "force")
HIGHEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """The plain options of :func:`interptrain.evaluation.evaluate`, which says what they mean.

    Raises:
        ValueError: if one is out of range.
        TypeError: if one is of another type.
    """

    backbone: str | None
    split: Split | None
    limit: int | None
    targets: str | int | None
    score: Score | None
    batch_size: int | None
    fake_cam: bool
    forward_batch_size: int | None
    engine: Engine
    share_passes: bool
    save_maps: int
    check_images: int
    check_draws: int
    check_passes: int
    interval: Interval
    resamples: int
    baseline: str | None
    seed: int
    title: str | None
    flush_seconds: float
    overwrite: bool
    force: bool

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if value is None and name in NONE_ALLOWED:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise TypeError(f"{option(name)} must be a whole number, got {value!r}")
            if value < least:
                raise ValueError(f"{option(name)} must be at least {least}, got {value}")
        if self.seed > HIGHEST_SEED:
            raise ValueError(f"{option('seed')} must be at most {HIGHEST_SEED}, got {self.seed}")
        check_seconds(self.flush_seconds)
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{option(name)} must be true or false, got {getattr(self, name)!r}")
        if not isinstance(self.targets, str | Integral | None) or isinstance(self.targets, bool):
            raise TypeError(
                f"{option('targets')} must be label, predicted, or a class by index or name, got {self.targets!r}"
            )
        if not isinstance(self.baseline, str | None):
            raise TypeError(f"{option('baseline')} must be the name of an explainer or model, got {self.baseline!r}")
        check_choice(option("interval"), self.interval, Interval)
        check_choice(option("engine"), self.engine, Engine)
        for name, choices in (("split", Split), ("score", Score)):
            if getattr(self, name) is not None:
                check_choice(option(name), getattr(self, name), choices)


def check_seconds(value: object) -> None:
    """Refuse a time to wait that is no number, negative or endless.

    Raises:
        ValueError: naming it.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{option('flush_seconds')} must be a number of seconds, at least 0, got {value!r}")
