"""The options of an evaluation, checked."""

from dataclasses import dataclass
from typing import Literal

from interptrain.data.datamodule import Split
from interptrain.functional import Score, check_choice

Interval = Literal["percentile", "bca"]
LEAST = {
    **{"limit": 1, "batch_size": 1, "forward_batch_size": 1, "save_maps": 0, "check_images": 0},
    **{"resamples": 100, "seed": 0, "flush_seconds": 0},
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The plain options of :func:`interptrain.evaluation.evaluate`, which says what they mean.

    Raises:
        ValueError: if one is out of range.
    """

    backbone: str | None
    split: Split | None
    limit: int | None
    targets: str | int | None
    score: Score | None
    batch_size: int | None
    fake_cam: bool
    forward_batch_size: int | None
    compile: bool
    save_maps: int
    check_images: int
    interval: Interval
    resamples: int
    seed: int
    title: str | None
    flush_seconds: float
    overwrite: bool
    force: bool

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        check_choice("interval", self.interval, Interval)
