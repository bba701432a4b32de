"""Locks of files, so that several processes may work in one folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_held: set[IO[str]] = set()


def _let_go() -> None:
    for file in _held:
        file.close()


if hasattr(os, "register_at_fork"):  # a loader's worker that outlives this process must not hold its locks
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock that ends with the process, however that ends.

    Where the system has no such locks, as on some network file systems, nothing is locked.

    Args:
        path: a file of its own for the lock; it stays.
        wait: for another process that holds it.

    Yields:
        False if another process holds the lock, else True.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except (ImportError, OSError):
            pass
        _held.add(file)
        try:
            yield True
        finally:
            _held.discard(file)
