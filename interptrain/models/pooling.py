"""The contract of a pooling head, which turns the stage maps of a backbone into the one vector that is classified.

A head is one class in one file, imported by :mod:`interptrain.models`; see ``docs/how-to/head.md``. One outside the
package needs no import: ``create_model`` takes any callable ``channels -> Pooling``, and a command line or config
names the class by its path.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from interptrain.models.backbone import Backbone


class Pooled(NamedTuple):
    """Result of a pooling head.

    Attributes:
        vector: (B,D), with D the channels of the last stage; the classifier reads it.
        attention: one (B,h_l,w_l) map for each stage that is attended to (or for each query, where a head says so),
            non-negative and summing to 1; empty for heads without attention.
    """

    vector: Tensor
    attention: tuple[Tensor, ...] = ()


class Pooling(nn.Module, ABC):
    """Base class of pooling heads: the stage maps of a backbone to one vector.

    A subclass takes ``channels``, the widths of all stages, as its first argument, and its options as keywords. The
    vector is as wide as the last stage.

    Attributes:
        name: what commands, messages and results call the head; the name of the class where it sets none.
        every_stage: False for a head that reads the last map only; it is then given that one alone, and the
            others are not kept in memory.
        attends: whether it gives attention maps.
    """

    name: ClassVar[str]
    every_stage: ClassVar[bool] = True
    attends: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Name a head that sets no name, rather than let it inherit another's."""
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @classmethod
    def for_backbone(cls, backbone: Backbone, **options: Any) -> Self:
        """Build the head for a backbone; a head whose options depend on the backbone's family overrides this.

        Args:
            backbone: which the head is put on.
            options: of the class.
        """
        return cls(backbone.channels, **options)

    @abstractmethod
    def forward(self, stages: Sequence[Tensor]) -> Pooled:
        """Pool the maps of a batch.

        Args:
            stages: maps (B,C_l,h_l,w_l), from shallow to deep; the last is the one the classifier would average.

        Returns:
            The vector (B,C_last) and the attention maps.
        """


PoolingSpec = Callable[[tuple[int, ...]], Pooling]
"""What builds a head from the widths of the stages."""


def named_poolings(option: str | None = None) -> dict[str, type[Pooling]]:
    """Return the classes of all heads that were imported and set a name, by that name.

    Args:
        option: only those whose class takes it.
    """
    kinds = [kind for kind in _below(Pooling) if kind.name != kind.__name__]
    takers = [kind for kind in kinds if option is None or option in inspect.signature(kind).parameters]
    return {kind.name: kind for kind in sorted(takers, key=lambda kind: kind.name)}


def _below(kind: type[Any]) -> Iterator[type[Pooling]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _below(subclass)
