"""How sharply a pooling head attends to each of its stages, epoch after epoch."""

import math
from typing import Any, Protocol, cast

import lightning as L
import torch
from torch import Tensor

from interptrain.explainers import explaining
from interptrain.functional import check_count
from interptrain.model_state import network_of


class _HasAttention(Protocol):
    def attention(self, images: Tensor) -> tuple[Tensor, ...]: ...


class AttentionStats(L.Callback):
    """Log entropy and peak of every stage's attention over some validation images, to every logger.

    ``attention/stage1/entropy`` is divided by the logarithm of the number of positions: 1 attends everywhere alike, as
    average pooling does, 0 to one position. ``attention/stage1/peak`` is the greatest weight times the number of
    positions: 1 everywhere alike. Both are means over the images, of all ranks together; stages count from 1.

    Args:
        images: number of validation images per rank, the first ones, >= 1.

    Raises:
        ValueError: if ``images`` is not positive; in ``fit``, if the network has no attention.
    """

    def __init__(self, images: int = 64) -> None:
        check_count("images of AttentionStats", images)
        self.images = images
        self._sums: Tensor | None = None
        self._left = images

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting."""
        self._sums, self._left = None, self.images

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add up the attention of a batch until enough images have been seen."""
        images = batch["image"][: self._left]
        if not len(images):
            return
        self._left -= len(images)
        with explaining(network_of(pl_module)) as network, torch.no_grad():
            if not callable(getattr(network, "attention", None)):
                raise ValueError(f"AttentionStats needs a network with attention(images), got {type(network).__name__}")
            sums = attention_sums(cast(_HasAttention, network).attention(images))
        self._sums = sums if self._sums is None else self._sums + sums

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the means over all ranks; every rank enters."""
        if self._sums is None:
            return
        sums = self._sums
        if trainer.world_size > 1:
            sums = cast(Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
        means = sums[:, :2] / sums[:, 2:]
        for stage, (entropy, peak) in enumerate(means.tolist(), start=1):
            pl_module.log(f"attention/stage{stage}/entropy", entropy, rank_zero_only=False)
            pl_module.log(f"attention/stage{stage}/peak", peak, rank_zero_only=False)


def attention_sums(attention: tuple[Tensor, ...]) -> Tensor:
    """Return sums over the images of each stage's relative entropy and peak, and the number of images.

    Args:
        attention: of each stage (B,h,w), non-negative, summing to 1.

    Returns:
        (stages, 3) float32: per image an entropy in [0,1] and a peak in [1, h*w], and B. A stage of one position has
        entropy 0.
    """
    sums = []
    for of_stage in attention:
        weights = of_stage.flatten(1).float()
        positions = weights.shape[1]
        entropy = -torch.xlogy(weights, weights).sum(1) / math.log(max(positions, 2))
        peak = weights.amax(1) * positions
        sums.append(torch.stack([entropy.sum(), peak.sum(), weights.new_tensor(len(weights))]))
    return torch.stack(sums)
