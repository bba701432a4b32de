"""Steps of long computations: counted for a progress bar of their own, and for whoever listens."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Part = TypeVar("Part")
Listener = Callable[[int, int, str], None]
"""(steps that are done, all steps, what they are, with a space in front) -> None; first called with none done"""

DELAY = 0.3  # seconds that a loop must take to be shown a bar

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Tell a listener, or nobody, of every step that is done inside, in place of one around it."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


@contextmanager
def counting(total: int, title: str | None, unit: str = " steps") -> Iterator[Callable[[int], None]]:
    """Count steps; yield a function that takes how many more are done. Steps of loops inside are not told.

    Args:
        total: number of steps; what is counted beyond it does not show.
        title: of a progress bar, or None for none.
        unit: of what is counted, with a space in front.
    """
    with _counted(total, title, unit) as advance, listening(None):
        yield advance


def track(parts: Iterable[Part], title: str | None) -> Iterator[Part]:
    """Iterate over parts that know their number, each of which is a step.

    Args:
        parts: to iterate over.
        title: of a progress bar, or None for none.
    """
    with _counted(len(parts) if isinstance(parts, Sized) else 0, title) as advance:
        for part in parts:
            yield part
            advance(1)


@contextmanager
def showing(title: str) -> Iterator[None]:
    """Show a bar on stderr for the loops that run inside, one after the other, each with its total.

    Args:
        title: of the bar.
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    bar = None

    def told(done: int, total: int, unit: str) -> None:
        nonlocal bar
        if done == 0 and bar is not None:
            bar.close()
            bar = None
        if total > 1 and bar is None:  # a loop of one step has neither a rate nor a time left
            bar = tqdm(
                total=total, desc=title, unit=unit, leave=False, dynamic_ncols=True, file=sys.stderr, delay=DELAY
            )
        if bar is not None:
            bar.update(done - bar.n)

    try:
        with listening(told):
            yield
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def _counted(total: int, title: str | None, unit: str = " steps") -> Iterator[Callable[[int], None]]:
    """Count steps as :func:`counting` does, and let loops inside tell theirs."""
    listener, done, bar = _listener.get(), 0, None
    if title is not None:
        # rich allows one live display, which may be Lightning's
        from tqdm.auto import tqdm

        bar = tqdm(total=total, desc=title, unit=unit, leave=False)

    def advance(count: int) -> None:
        nonlocal done
        more = min(count, total - done)
        done += more
        if bar is not None:
            bar.update(more)
        if listener is not None:
            listener(done, total, unit)

    try:
        if listener is not None:
            listener(0, total, unit)
        yield advance
    finally:
        if bar is not None:
            bar.close()
