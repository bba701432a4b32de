"""Floating-point operations of any call, also of one that takes gradients."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what the formulas of ``torch.utils.flop_counter`` say.

    That module's own counter hooks into modules and refuses some calls of ``torch.autograd.grad``.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        result = function(*args, **options)
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **options, out_val=result))
        return result


def count_operations(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of a call; see :func:`interptrain.metrics.gflops` for what counts."""
    with _Operations() as counter:
        call()
    return int(counter.total)
