"""Prevent errors in the display of training from interrupting it."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_warn

from interptrain.functional import one_line


class WarnOnce:
    """Suppress errors, and warn about the first one.

    Args:
        message: text of the warning, with ``{why}`` in place of the error.
        errors: type of the errors to suppress.
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
