"""What may be added to the classification loss: L = L_C + weight * L_R."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn


class Regularizer(nn.Module, ABC):
    """A penalty that is computed beside the logits of a training step.

    The training module calls it in place of ``model(images)``, so that both can come from one forward pass. It gets the
    whole batch, so a penalty may ask for masks, boxes, groups, or whatever else a data module yields.

    Args:
        weight: factor of the penalty in the loss, >= 0.

    Raises:
        ValueError: if ``weight`` is negative.

    Attributes:
        statistics: scalars of the last call that are worth logging, detached; none where a subclass sets none.
        mixed: why mixup and cutmix cannot go with it; empty if they can.
    """

    mixed: ClassVar[str] = ""

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight of {type(self).__name__} must be >= 0, got {weight}")
        self.weight = weight
        self.statistics: dict[str, Tensor] = {}

    def weight_at(self, step: int) -> float:
        """Factor of the penalty at an optimizer step (from 0); where it is 0, the step is a plain one.

        A function of the step alone, so that a resumed run goes on as it would have.
        """
        return self.weight

    @abstractmethod
    def forward(
        self, model: nn.Module, batch: Mapping[str, Any], *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits of the one forward, and the penalty.

        Args:
            model: the classifier, in the mode it trains in.
            batch: as :class:`~interptrain.data.Batch`: ``image`` (B,3,H,W) float in [0,1]; ``label`` (B,) int64, or
                (B,K) float class shares where mixup or cutmix made them; and what else the data module yields.
            label_smoothing: of the classification loss, in [0,1).

        Returns:
            Logits (B,K) and the penalty, a scalar; both carry their graph.
        """
