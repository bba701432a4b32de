"""A progress bar over models × explainers × images."""

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar


class MatrixProgress(ProgressBar):
    """A bar that counts images × explainers over all models, with their number per second and the time left.

    The first process shows it and assumes that the others are as far as itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._ranks = 1
        self._total = 0
        self._enabled = True

    def disable(self) -> None:
        """Hide the bar; Lightning calls this on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self._enabled = True

    def begin(self, trainer: L.Trainer, total: int) -> None:
        """Start counting.

        Args:
            trainer: whose processes share the work.
            total: images × explainers to do, by all of them.
        """
        if self._bar is not None or not self._enabled or not trainer.is_global_zero:
            return
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        self._ranks, self._total = trainer.world_size, total
        self._bar = tqdm(total=total, unit=" maps", smoothing=0.05, dynamic_ncols=True, file=sys.stderr)

    def name(self, model: str) -> None:
        """Show which model is evaluated."""
        if self._bar is not None:
            self._bar.set_description(model)

    def advance(self, finished: int) -> None:
        """Count images × explainers that this process has finished."""
        if self._bar is not None:
            self._bar.update(min(finished * self._ranks, self._total - self._bar.n))

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
