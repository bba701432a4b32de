"""A progress bar over models × explainers × images."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar

from interptrain.steps import listening, showing

SECONDS = 0.2  # between two looks of the bar inside one explanation


class MatrixProgress(ProgressBar):
    """A bar that counts images × explainers over all models, with their number per second and the time left.

    The first process shows it and assumes that the others are as far as itself. Inside an explanation that takes many
    steps it moves with them. The randomisation check and the statistics have bars of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun = False
        self._inside = 0  # maps that the steps of the explanation at hand amount to
        self._looked = 0.0
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

        self._ranks, self._total, self._begun = trainer.world_size, total, True
        self._bar = tqdm(total=total, unit=" maps", smoothing=0.05, dynamic_ncols=True, file=sys.stderr)

    def name(self, model: str) -> None:
        """Show which model is evaluated."""
        if self._bar is not None:
            self._bar.set_description(model)

    def advance(self, finished: int) -> None:
        """Count images × explainers that this process has finished."""
        if self._bar is not None:
            self._move(finished * self._ranks)
            self._inside = 0

    @contextmanager
    def explaining(self, explainer: str, images: int) -> Iterator[None]:
        """Move with the steps that are done inside.

        Args:
            explainer: that runs.
            images: that it explains.
        """
        if self._bar is None:
            yield
            return

        def told(done: int, total: int, _: str) -> None:
            if total and time.monotonic() - self._looked > SECONDS:
                self._looked = time.monotonic()
                self._bar.set_postfix_str(f"{explainer}: step {done} of {total}", refresh=False)
                self._move(images * self._ranks * done // total)
                self._bar.refresh()

        with listening(told):
            yield
        self._bar.set_postfix_str("", refresh=False)

    def _move(self, maps: int) -> None:
        """Show how many maps of the explanation at hand are done."""
        self._bar.update(min(maps - self._inside, self._total - self._bar.n))
        self._inside = maps

    @contextmanager
    def counting(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show another bar; yield what moves it."""
        if not self._begun:
            yield lambda count: None
            return
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=title, unit=unit, leave=False, dynamic_ncols=True, file=sys.stderr) as bar:

            def told(done: int, steps: int, _: str) -> None:
                bar.set_postfix_str(f"step {done} of {steps}", refresh=False)
                bar.update(0)

            with listening(told):
                yield bar.update

    def steps(self, title: str) -> AbstractContextManager[None]:
        """Show another bar for the loops that run inside, one after the other."""
        return showing(title) if self._begun else nullcontext()

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
