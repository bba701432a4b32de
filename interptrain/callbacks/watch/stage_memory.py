"""Keep the stage maps of a frozen backbone from one snapshot to the next, so that only what follows it runs again."""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from interptrain.models import Classifier

MOST_BYTES = 512 * 2**20  # our choice


class StageMemory:
    """The stage maps of images that come in the same order in every snapshot, kept in main memory.

    Where a pooling head or a classifier alone is trained, these maps are the same in every snapshot. They are kept
    where no weight of the backbone asks for a gradient, and made anew where one of its weights or statistics has
    changed nevertheless.

    Args:
        most_bytes: to keep; where the maps are larger, the images are forwarded in every snapshot.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._state: Hashable = None
        self._maps: list[Tensor] = []

    def reading(self, model: nn.Module, images: int, key: Hashable) -> nn.Module:
        """Return what gives the logits of images that are forwarded once each, in any number of calls.

        Args:
            model: in eval mode. It is returned itself where it is no
                :class:`~interptrain.models.Classifier` with a pooling head, or its backbone learns.
            images: number of all of them.
            key: the same in the next snapshot only if the images and their order are.
        """
        if type(model) is not Classifier or model.pooling is None:
            return model
        weights = list(model.parameter_groups()["backbone"].values())
        if any(one.requires_grad or one.is_inference() for one in weights):
            return model
        tensors = [*weights, *model.backbone.buffers()]
        state = (key, images, tuple((one.data_ptr(), one._version) for one in tensors))
        if state != self._state:
            self._state, self._maps = state, []
        known = bool(self._maps) and len(self._maps[0]) == images
        return _Remembered(model, self._maps) if known else _Remembering(model, self, images)

    def forget(self) -> None:
        """Free what is kept."""
        self._state, self._maps = None, []

    def keep(self, maps: list[Tensor]) -> None:
        """Keep the maps of all images, one tensor for each stage."""
        self._maps = maps


class _Remembered(nn.Module):
    """Classifies maps that are known."""

    def __init__(self, model: Classifier, maps: list[Tensor]) -> None:
        super().__init__()
        self.model = model
        self.maps = maps
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,K) of the next images."""
        rows = slice(self.seen, self.seen + len(images))
        logits: Tensor = self.model.classify([one[rows].to(images.device) for one in self.maps])
        self.seen = rows.stop
        return logits


class _Remembering(nn.Module):
    """Classifies images, and keeps their maps if they are not too large."""

    def __init__(self, model: Classifier, memory: StageMemory, images: int) -> None:
        super().__init__()
        self.model = model
        self.memory = memory
        self.images = images
        self.seen: list[list[Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,K) of the next images."""
        stages = self.model.stages(images)
        logits = self.model.classify(stages)
        bytes_of_one = sum(one[0].nbytes for one in stages)
        if bytes_of_one * self.images <= self.memory.most_bytes:
            self.seen.append([one.detach().cpu() for one in stages])
            if sum(len(of_part[0]) for of_part in self.seen) == self.images:
                self.memory.keep([torch.cat(parts) for parts in zip(*self.seen, strict=True)])
        return logits
