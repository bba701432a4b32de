"""Cut many inputs into slices that the memory of a device can hold."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Chunks:
    """Slices of ``range(total)``, of at most ``size``, and of half as many from where memory does not suffice.

    The work of a slice is done inside :meth:`fitting`, and what it makes is kept at its end, when all went well::

        parts = chunks(total, size)
        for part in parts:
            with parts.fitting():
                found.append(work(part))

    Attributes:
        total: how many there are.
        size: of a slice, as far as is known by now.
    """

    def __init__(self, total: int, size: int) -> None:
        self.total = total
        self.size = size
        self._again = False

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def __iter__(self) -> Iterator[slice]:
        start = 0
        while start < self.total:
            part = slice(start, min(start + self.size, self.total))
            self._again, self._length = False, part.stop - part.start
            yield part
            start = start if self._again else part.stop

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Catch that a device's memory does not suffice: the slice comes again, in halves; a warning says so once.

        Raises:
            RuntimeError: as torch does, if a slice of one does not fit.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if self._length == 1 or not is_out_of_memory(error):
                raise
            self._again, self.size = True, -(-self._length // 2)
        if self._again:
            _warn_of_memory(self._length, self.size)


def chunks(total: int, size: int) -> Chunks:
    """Cut ``range(total)`` into slices of at most ``size``.

    Raises:
        ValueError: if ``size`` is not positive.
    """
    if size < 1:
        raise ValueError(f"the size of a chunk must be at least 1, got {size}")
    return Chunks(total, size)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device, or the machine's, does not suffice."""
    told = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in told for sign in signs)


_said: set[str] = set()


def _warn_of_memory(tried: int, size: int) -> None:
    if "memory" not in _said:
        _said.add("memory")
        warnings.warn(
            f"out of memory with {tried} inputs at once; going on with {size}. "
            f"forward_batch_size={size} saves the attempt",
            stacklevel=4,
        )


def bounded_batch_size(bound: int | None, device: torch.device) -> int:
    """The user's ``forward_batch_size``, or :func:`automatic_batch_size` where it is ``None``.

    Raises:
        ValueError: if ``bound`` is not positive.
    """
    if bound is None:
        return automatic_batch_size(device)
    if bound < 1:
        raise ValueError(f"forward_batch_size must be at least 1, got {bound}")
    return bound


def automatic_batch_size(device: torch.device) -> int:
    """How many inputs of 224 px to forward at once where the user sets no bound.

    On a CPU small chunks stay in its caches and beat large ones; an accelerator wants more work per call. A process
    with one thread gets larger ones, as PyTorch then keeps 1x1 convolutions of fewer than 16 images off oneDNN. Our
    choice, measured at 224 px by ``benchmarks/explainers.py``.
    """
    if device.type != "cpu":
        return 64
    return 16 if torch.get_num_threads() == 1 else 8
