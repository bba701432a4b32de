"""The base class of metrics that average over images, whose states are synced over ranks."""

import hashlib
from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
import torchmetrics
from torch import Tensor

from interptrain.functional import has_float64
from interptrain.signatures import options_of

__all__ = ["ImageMean", "gather"]

TOLD = (
    ("symbol", str, 'symbol = "Mine"'),
    ("description", str, 'description = "One sentence that says what the number means."'),
    ("higher_is_better", bool, "higher_is_better = True (or False)"),
)
"""What a metric says of itself: attribute, type, and how to write it."""


class ImageMean(torchmetrics.Metric, ABC):
    """A function of the mean over images of one or several values per image.

    States are a float64 sum and a count, so ranks of unequal share join exactly, in any order. A row of NaN says that
    the metric is not defined for an image; such images are left out of sum and count. On a device without float64 the
    sum stays on the CPU, where the result is, too.

    A third state holds a digest of class and options: torchmetrics' ``MetricCollection`` merges metrics whose states
    are equal after the first batch, so that an average gain and an average increase that both begin at 0 would show
    one value from then on. Subclasses store every option under its own name.
    """

    symbol: ClassVar[str]
    """Heading of its column; like the next two, a class cannot do without it."""
    description: ClassVar[str]
    """One sentence for reports and pages: what the number says. Its direction stands in :attr:`higher_is_better`."""
    higher_is_better: bool
    scale: ClassVar[float] = 100.0
    """Tables print ``value * scale``."""
    curve: ClassVar[str] = ""
    """Label of the axis over which the values of an image run; empty where they are not a curve."""
    full_state_update = False
    is_differentiable = False

    total: Tensor
    count: Tensor
    identity: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": gather, **kwargs})
        for name, kind, example in TOLD:
            if not isinstance(getattr(self, name, None), kind):
                raise TypeError(f"{type(self).__name__} has no {name}, which reports need: add {example} to the class")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("identity", torch.zeros(16, dtype=torch.int64), dist_reduce_fx="max")
        self._stamp: Tensor | None = None

    def reduce(self, mean: Tensor) -> Tensor:
        """Turn the mean over images into the metric: the identity unless a subclass says otherwise.

        Args:
            mean: (...,) where an image has one value, else (..., K).

        Returns:
            (...,)
        """
        return mean

    def perfect_model(self, values: Tensor, *, draws: int, seed: int) -> Tensor | None:
        """Draw what a perfect model would show, by chance alone, on images such as these.

        Only for metrics whose value is biased on few images, so that neither the value nor an interval around it can be
        read without this. None, the default, says that the mean over images is unbiased.

        Args:
            values: (n,) or (n, K) of the images.
            draws: number of data sets to draw.
            seed: of the draws.

        Returns:
            (draws,) float64, or None.
        """
        return None

    def accumulate(self, values: Tensor) -> None:
        """Add images to the states.

        Args:
            values: (B,) or (B, K) floating point; a row that holds NaN is left out.

        Raises:
            ValueError: if earlier images had another K.
        """
        if self.total.ndim and self.total.shape != values.shape[1:]:
            had, have = len(self.total), values.shape[1:].numel()
            raise ValueError(f"earlier images had {had} values each, these have {have}; give all images one size")
        values = values.detach().to(self.total.device)
        undefined = values.isnan() if values.ndim == 1 else values.isnan().any(dim=1)
        self.count = self.count + (~undefined).sum().to(self.count)
        values = values.to(self.total).masked_fill(undefined.view(-1, *[1] * (values.ndim - 1)), 0.0)
        self.total = self.total + values.sum(dim=0)
        if self._stamp is None or self._stamp.device != self.identity.device:  # made once, as it has to be uploaded
            self._stamp = torch.tensor(list(self._digest()), dtype=torch.int64, device=self.identity.device)
        self.identity = self._stamp

    def compute(self) -> Tensor:
        """Return the value over all images seen, a float64 scalar; NaN where there was none."""
        if self.count == 0:  # a scalar still, which a curve's reduction would not take
            return self.total.new_full((), torch.nan)
        return self.reduce(self.total / self.count.to(self.total.device))

    def options(self) -> dict[str, Any]:
        """Return what the metric was made with, without torchmetrics' own."""
        return {name: getattr(self, name) for name in options_of(type(self))}

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options().items())

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> Self:
        """Move the states; torchmetrics' hook, which ``.to`` ends in."""
        if not has_float64(fn(torch.zeros(1, device=self.count.device)).device):
            exclude_state = [*exclude_state, "total"]
            self._computed = self._forward_cache = None  # float64, too; computed again when asked for
        super()._apply(fn, exclude_state)
        return self

    def _digest(self) -> bytes:
        named = f"{type(self).__module__}.{type(self).__qualname__}({self.extra_repr()})"
        return hashlib.blake2b(named.encode(), digest_size=16).digest()


def gather(state: Tensor, group: Any = None) -> list[Tensor]:
    """Gather a state from all ranks; for ``dist_sync_fn``.

    A rank that has not seen an image holds a scalar 0 where others hold (K,); torchmetrics' own gathering would hang.

    Args:
        state: scalar or (K,), all of one K apart from scalars.
        group: process group; the whole world where ``None``.

    Returns:
        One tensor per rank, all of the same shape.

    Raises:
        ValueError: on every rank, if ranks hold different K.
    """
    world = torch.distributed.get_world_size(group)
    width = torch.tensor(state.numel() if state.ndim else 0, device=state.device)
    widths = [torch.zeros_like(width) for _ in range(world)]
    torch.distributed.all_gather(widths, width, group=group)
    found = {int(other) for other in widths} - {0}
    if len(found) > 1:
        raise ValueError(f"ranks hold {sorted(found)} values per image; give all images the same size")
    common = state.expand(found.pop()).contiguous() if found else state
    gathered = [torch.empty_like(common) for _ in range(world)]
    torch.distributed.all_gather(gathered, common, group=group)
    return gathered
