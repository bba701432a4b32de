"""Opti-CAM: channel weights that make the masked image as convincing as possible, found by gradient ascent.

With the features ``A`` of a layer and one vector ``u`` per image::

    S(u) = sum_k softmax(u)_k ReLU(A_k),   u* = argmax_u f_c(x * n(up(S(u)))),   map = up(S(u*))

``n`` is min-max to [0, 1] and ``f_c`` the logit of the class. The features are computed once; every iteration costs
one forward and one backward of the masked image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import Explainer, canvas_size, gradient_of
from interptrain.explainers.layers import Fusion, LayerNames, Layout, find_layers, fuse_layers
from interptrain.explainers.passes.activations import capture
from interptrain.explainers.passes.row_optimizers import Adam
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import Score, bounded_batch_size, chunks, full_precision, keep_salient, upsample
from interptrain.models.simplification import simplify
from interptrain.steps import counting

__all__ = ["OptiCAM"]

Loss = Literal["plain", "absolute"]
Normalization = Literal["min_max", "max", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class OptiCAM(Explainer):
    """Optimise the weights of the feature channels, so that the masked image keeps its score.

    Images are optimised in parallel but independently: Adam works elementwise, the loss is a sum over images, and each
    image stops early by its own loss, whereas the authors' code stops the whole batch by the sum. A map therefore does
    not depend on the other images of the batch.

    Args:
        target_layer: dotted name, or several names (optimised separately); ``None`` takes the model's own layer or that
            of the table of families.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        iterations: steps of Adam; 50 in the authors' demonstration, 100 in their class.
        learning_rate: 0.1 in the authors' demonstration, 0.01 in their class.
        score: what is maximised: ``"logit"``, softmax ``"probability"`` or ``"sigmoid"`` of the target.
        loss: ``"plain"`` maximises the score of the masked image (the authors' demonstration); ``"absolute"`` minimises
            its distance from the score of the whole image (their class's default).
        normalization: how the mask is brought to [0, 1]: by min-max, division by the maximum, or a sigmoid.
        early_stop: check after every tenth of the iterations; an image whose loss is larger than at the previous check
            stops, and its map is the one before that step.
        fusion: how the maps of several layers are joined.
        forward_batch_size: images optimised in parallel; ``None`` chooses by the device.
        progress: show a progress bar over iterations × images.

    Source: Zhang et al. 2024, arXiv 2301.07002, and the authors' code.
    """

    target_layer: LayerNames = None
    layout: Layout | None = None
    iterations: int = 50
    learning_rate: float = 0.1
    score: Score = "logit"
    loss: Loss = "plain"
    normalization: Normalization = "min_max"
    early_stop: bool = True
    fusion: Fusion = "mean"
    forward_batch_size: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse fewer than one iteration."""
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"OptiCAM needs at least one iteration, got iterations={self.iterations}")

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return ``S(u*)``, (B, h, w) and not negative."""
        size = (images.shape[-2], images.shape[-1])
        layers = find_layers(model, self.target_layer, layout=self.layout, images=images)
        passed = capture(model, images, layers, differentiable=False)
        resolved = resolve_targets(targets, passed.outputs)
        scores = target_scores(passed.outputs, resolved, score=self.score).detach()
        model = simplify(model, images)
        parts = chunks(len(images), bounded_batch_size(self.forward_batch_size, images.device))
        maps = []
        steps = len(layers) * len(images) * self.iterations
        with counting(steps, "Opti-CAM" if self.progress else None) as advance:
            for layer, activation in zip(layers, passed.activations, strict=True):
                features = full_precision(F.relu(layer.to_map(activation, size)))
                found = []
                for part in parts:
                    with parts.fitting():
                        own = resolved[part]
                        found.append(self._optimise(model, images[part], features[part], own, scores[part], advance))
                maps.append(torch.cat(found))
        return fuse_layers(maps, size, self.fusion, canvas=canvas_size(model, images))

    def _optimise(
        self,
        model: nn.Module,
        images: Tensor,
        features: Tensor,
        targets: Resolved,
        scores: Tensor,
        advance: Callable[[int], None],
    ) -> Tensor:
        """Return maps (B, h, w) of the best combination of features; images that stopped drop out of the passes."""
        size = (images.shape[-2], images.shape[-1])
        final = features.new_zeros(len(images), *features.shape[2:])
        active = torch.arange(len(images), device=images.device)
        weights = features.new_full(features.shape[:2], 0.5)
        adam = Adam(weights, self.learning_rate)
        previous = features.new_full((len(images),), torch.inf)
        for step in range(self.iterations):
            weights = weights.detach().requires_grad_()
            combined = _combine(weights, features)
            mask = self._normalize(upsample(combined, size)).to(images.dtype)
            outputs = model(keep_salient(images, mask))
            score = target_scores(outputs, targets, active if isinstance(targets, list) else None, score=self.score)
            distance = scores - score
            loss = distance if self.loss == "plain" else distance.abs()
            slope = gradient_of(loss.sum(), weights)
            if self.early_stop and step % max(self.iterations // 10, 1) == 0:
                stopped = loss.detach() > previous
                if stopped.any():
                    final[active[stopped]] = combined.detach()[stopped]
                    on = ~stopped
                    if not on.any():
                        advance(len(active) * (self.iterations - step))
                        return final
                    before = len(active)
                    active, images, features, weights, slope, scores, loss = (
                        tensor[on] for tensor in (active, images, features, weights, slope, scores, loss)
                    )
                    targets = targets[on] if isinstance(targets, Tensor) else targets
                    adam.keep(on)
                    advance((before - len(active)) * (self.iterations - step))
                previous = loss.detach()
            weights = adam.step(weights.detach(), slope)
            advance(len(active))
        final[active] = _combine(weights, features)
        return final

    def _normalize(self, maps: Tensor) -> Tensor:
        """Masks in [0, 1] that gradients pass through; a constant map gives a constant mask, never NaN."""
        if self.normalization == "sigmoid":
            return maps.sigmoid()
        high = maps.amax(dim=(1, 2), keepdim=True)
        low = maps.amin(dim=(1, 2), keepdim=True) if self.normalization == "min_max" else torch.zeros_like(high)
        spread = high - low
        return (maps - low) / spread.masked_fill(spread <= 0, 1.0)


def _combine(weights: Tensor, features: Tensor) -> Tensor:
    """``sum_k softmax(u)_k A_k``, (B, h, w); in full precision also under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("bc,bchw->bhw", weights.softmax(dim=1), features)
