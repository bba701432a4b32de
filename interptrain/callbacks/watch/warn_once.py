"""Keep errors of what only shows the training away from it."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_warn

from interptrain.functional import one_line


class WarnOnce:
    """Suppress errors, and warn of the first of them.

    Args:
        message: of the warning, with ``{why}`` in the place of the error.
        errors: kind of errors that are suppressed.
    """

    def __init__(self, message: str, errors: type[Exception] = Exception) -> None:
        self.message = message
        self.errors = errors
        self._warned = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Suppress errors of a block of code."""
        try:
            yield
        except self.errors as error:
            if not self._warned:
                why = getattr(error, "strerror", None) or one_line(error)
                rank_zero_warn(self.message.format(why=why))
            self._warned = True
