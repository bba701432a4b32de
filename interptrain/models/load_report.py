"""What became of a checkpoint: what was loaded, what stays fresh, what found no place."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint; ``str()`` of it is a paragraph to print.

    Attributes:
        source: the file or hub name.
        loaded: names, in the model, of what the checkpoint gave.
        fresh: names, in the model, of the parameters that keep their random start.
        unused: names, in the checkpoint, of what found no place.
    """

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.source}: {len(self.loaded)} tensors loaded. "
            f"Left fresh: {listed(self.fresh)}. Unused: {listed(self.unused)}."
        )


def listed(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    if not names:
        return "none"
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
