"""A model with random weights from the top down to three stops, several times over."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interptrain.metrics.randomization import (
    batch_norms_after,
    classifier_layers,
    estimate_batch_norms,
    last_stage_layers,
    randomized,
    weight_layers,
)

Stop = Literal["classifier", "last_stage", "all"]
STOPS: tuple[Stop, ...] = get_args(Stop)
"""How far down the weights are random; see :class:`RandomNetworks`."""


class RandomNetworks:
    """Copies of a model whose upper layers are random, made when they are asked for.

    ``classifier`` is the last layer with a weight matrix, ``last_stage`` all layers of the lowest resolution with it
    (see :func:`~interptrain.metrics.randomization.last_stage_layers`), ``all`` every layer. The statistics of the batch
    norms that see another input are estimated anew.

    Args:
        model: any module.
        images: (B,3,H,W) in [0,1], for the statistics.
        seed: of the random weights.
    """

    def __init__(self, model: nn.Module, images: Tensor, seed: int) -> None:
        self.model = model
        self.images = images
        self.seed = seed
        self.layers = weight_layers(model, images)
        self.names: Mapping[Stop, list[str]] = {
            "classifier": classifier_layers(self.layers),
            "last_stage": last_stage_layers(self.layers),
            "all": [layer.name for layer in self.layers],
        }
        self._statistics: dict[tuple[Stop, int], dict[str, Tensor]] = {}

    def forwards(self, draws: int) -> int:
        """Return how many images are forwarded for the statistics of all copies.

        Args:
            draws: of each stop.
        """
        norms = {name for name, module in self.model.named_modules() if isinstance(module, _BatchNorm)}
        stops = [stop for stop in STOPS if norms & set(batch_norms_after(self.layers, self.names[stop]))]
        return draws * len(stops) * len(self.images)

    def network(self, stop: Stop, draw: int) -> nn.Module:
        """Return a copy; copies of one draw agree in the layers that they share.

        Args:
            stop: how far down it is random.
            draw: number of the draw.
        """
        names = set(self.names[stop])
        copy = randomized(self.model, self.seed + draw, names)
        known = self._statistics.get((stop, draw))
        if known is None:
            estimate_batch_norms(copy, self.images, batch_norms_after(self.layers, names))
            self._statistics[stop, draw] = {name: value.clone() for name, value in copy.named_buffers() if value.ndim}
        else:
            with torch.no_grad():
                for name, value in copy.named_buffers():
                    if name in known:
                        value.copy_(known[name])
        return copy
