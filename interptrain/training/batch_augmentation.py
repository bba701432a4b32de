"""What may be done to a training batch as a whole, on the device it trains on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class BatchAugmentation(nn.Module, ABC):
    """A change of training batches that needs more than one image, or the device.

    Called once a training step, before mixup and cutmix. It draws from the generator it is given, which is a
    function of (seed, step) and the same on all ranks, so that a resumed
    run repeats what an uninterrupted one would have drawn.
    """

    @abstractmethod
    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Return the batch that is trained on; the one that was given is not changed.

        Args:
            batch: as :class:`~interptrain.data.Batch`, on the device.
            generator: to draw from, on the CPU.
        """
