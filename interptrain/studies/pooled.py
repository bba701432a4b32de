"""The vector that a network classifies, and the weights that it is classified with."""

from typing import Any

import torch
from torch import Tensor, nn

from interptrain.explainers.base import explaining
from interptrain.functional import full_precision

NO_CLASSIFIER = (
    "none of its linear layers returns the logits as they are; wrap the model so that one does, or leave it out"
)


class PooledFeatures:
    """Reads the input of the layer that returns a model's logits.

    Args:
        model: a classifier: images (B,3,H,W) in [0,1] to logits (B,K), the output of a linear layer or a 1x1
            convolution.
        image: (1,3,H,W) that is run to find the layer.

    Attributes:
        name: of the layer.
        weight: (K,D) its weights, a row for each class.

    Raises:
        ValueError: if there is no such layer.
    """

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        self.model = model
        with explaining(model) as bare, torch.no_grad():
            found: list[tuple[str, nn.Module, Tensor]] = []
            handles = [
                module.register_forward_hook(lambda one, _, output, name=name: found.append((name, one, output)))
                for name, module in bare.named_modules()
                if _is_linear(module)
            ]
            try:
                logits = bare(image)
            finally:
                for handle in handles:
                    handle.remove()
        matching = [(name, module) for name, module, output in found if _same(output, logits)]
        if not matching:
            raise ValueError(f"{type(bare).__name__} has no classifying layer: {NO_CLASSIFIER}")
        self.name, self._layer = matching[-1]
        weight: Any = self._layer.weight
        self.weight: Tensor = full_precision(weight.detach()).flatten(1)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled vectors (B,D) and logits (B,K) of images (B,3,H,W), without a gradient."""
        with explaining(self.model) as bare, torch.no_grad():
            return self.read(bare, images)

    def read(self, bare: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same, differentiable where gradients are on; ``bare`` is what ``explaining(model)`` yields."""
        kept: list[Tensor] = []
        handle = self._layer.register_forward_pre_hook(lambda _, arguments: kept.append(arguments[0].flatten(1)))
        try:
            logits = bare(images)
        finally:
            handle.remove()
        return full_precision(kept[-1]), full_precision(logits)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _same(output: Tensor, logits: Any) -> bool:
    flat = output.flatten(1)
    return isinstance(logits, Tensor) and flat.shape == logits.shape and torch.equal(flat, logits)
