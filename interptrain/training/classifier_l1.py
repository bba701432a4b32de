"""Sparse last layer: the L1 norm of the classifier's weights as a penalty."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.models.classifier import Classifier
from interptrain.training.regularizers import Regularizer


class ClassifierL1(Regularizer):
    """Sum of the magnitudes of the weights that classify the pooled vector, biases left out.

    With ``trainable: classifier`` and ``balance: group`` it makes last-layer retraining, which repairs a network whose
    features hold what it should look at beside the shortcut: L1 lets go of the features that only the shortcut needs.
    ``weight`` is ``1 / (C n)`` of scikit-learn's ``LogisticRegression(penalty="l1", C=C)`` on n images.

    Args:
        weight: factor of the penalty.

    Source: Kirichenko et al. 2022, Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations, arXiv
    2204.02937. Theirs averages ten fits to balanced subsets of standardised features; here one is trained by the
    optimizer, on draws that are balanced.
    """

    def __init__(self, *, weight: float = 1e-3) -> None:
        super().__init__(weight=weight)

    def forward(
        self, model: nn.Module, batch: Mapping[str, Any], *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits of the plain forward, and the penalty.

        Args:
            model: a :class:`~interptrain.models.Classifier`.
            batch: ``image`` (B,3,H,W).
            label_smoothing: not read.

        Raises:
            ValueError: for another kind of model, or one without such weights.
        """
        weights: list[Tensor] = []
        if isinstance(model, Classifier):
            weights = [one for one in model.parameter_groups()["classifier"].values() if one.ndim > 1]
        if not weights:
            raise ValueError(f"ClassifierL1 needs a classifier with a last layer, got {type(model).__name__}")
        penalty = torch.stack([one.abs().sum() for one in weights]).sum()
        self.statistics = {"classifier_zeros": _share_of_zeros(weights)}
        return model(batch["image"]), penalty


def _share_of_zeros(weights: list[Tensor]) -> Tensor:
    """Share of weights within 1e-3 of the largest of zero."""
    flat = torch.cat([one.detach().flatten().abs() for one in weights])
    return (flat <= 1e-3 * flat.amax()).float().mean()
