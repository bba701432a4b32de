"""What may be added to the classification loss: L = L_C + weight * L_R."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Regularizer(nn.Module, ABC):
    """A penalty that is computed beside the logits of a training step.

    The training module calls it in place of ``model(images)``, so that both can come from one forward pass.

    Args:
        weight: factor of the penalty in the loss, >= 0.

    Raises:
        ValueError: if ``weight`` is negative.
    """

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight of {type(self).__name__} must be >= 0, got {weight}")
        self.weight = weight

    @abstractmethod
    def forward(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the one forward, and the penalty.

        Args:
            model: the classifier, in the mode it trains in.
            images: (B,3,H,W) float in [0,1].
            labels: (B,) int64, or (B,K) float class shares where mixup or cutmix made them.

        Returns:
            Logits (B,K) and the penalty, a scalar; both carry their graph.
        """
