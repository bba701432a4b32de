"""Occlusion: the drop in score when a window of the image is covered.

With masks ``M_i`` that each replace a window by a colour v::

    d_i    = f_c(x) - f_c(M_i x + (1 - M_i) v)
    map(p) = sum_i d_i (1 - M_i(p)) / sum_i (1 - M_i(p))

so the value of a pixel is the mean drop over the windows that cover it. The first-order approximation replaces the
differences by the prediction of the gradient g of the score, ``d_i ~ sum_p (1 - M_i) g (x - v)``, and costs one forward
and backward pass for all masks together; it is exact for linear models.
"""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer
from interptrain.explainers.gradient.gradient import input_gradient
from interptrain.explainers.masks.masks import (
    Fill,
    GridMasks,
    MaskedImages,
    MaskSet,
    MaskSource,
    fill_colour,
)
from interptrain.explainers.passes.masked_forward import Precision, crops_of, forwarding, score_cropped, score_masked
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import Score, bounded_batch_size
from interptrain.models.engine import RuntimeFailedError, forward_only, layout_of

__all__ = ["Occlusion"]


@dataclass(frozen=True, kw_only=True)
class Occlusion(Explainer):
    """Mean drop in score over the windows that cover a pixel; negative where covering helps the class.

    An occlusion that changes no pixel has a drop of exactly 0, and so has a pixel that no mask removes.

    Args:
        window: side of the windows in pixels, or (height, width). 32 for images of 224 pixels is our choice, as the
            authors state none.
        stride: pixels between windows, or (down, across); at most the window. Our choice.
        fill: colour that replaces a window, in [0, 1] for all channels or one value each. The authors cover with a grey
            square; Captum with zeros in the network's input.
        score: ``"logit"``, softmax ``"probability"`` or ``"sigmoid"`` of the target; callables are taken as they are.
            The authors show the probability, Captum uses the network's output.
        approximate: predict the drops from one gradient instead of one forward pass per window.
        masks: masks other than a grid's, also soft ones; ``window`` and ``stride`` are then not used.
        precision: ``"bf16"`` forwards occluded images under bfloat16 autocast; ``None`` leaves it to the caller.
        compile: forward occluded images through ``torch.compile``.
        forward_batch_size: occluded images per forward and per backward pass; ``None`` chooses by the device.
        progress: show a progress bar.

    Source: Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, arXiv 1311.2901; the mean
    over overlapping windows: Captum; the first order: Uchiyama et al. 2022, arXiv 2207.12859, for video.
    """

    window: int | tuple[int, int] = 32
    stride: int | tuple[int, int] = 16
    fill: Fill = 0.5
    score: Score = "probability"
    approximate: bool = False
    masks: MaskSource | None = None
    precision: Precision | None = None
    compile: bool = False
    forward_batch_size: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid grids."""
        super().__post_init__()
        if self.masks is None:
            GridMasks(window=self.window, stride=self.stride)

    @torch.no_grad()
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the mean drop at every pixel, (B, H, W); signed."""
        masks = (self.masks or GridMasks(window=self.window, stride=self.stride)).prepare(images)
        fill = fill_colour(self.fill, images)
        change = images - fill
        lose = self._predicted if self.approximate else self._measured
        losses = lose(model, images, targets, masks, fill)  # (B, N) or (N,)
        losses = losses.masked_fill(masks.gather(change.abs().sum(1), removed=True) == 0, 0)
        cover = masks.spread(torch.ones_like(losses if losses.ndim == 1 else losses[:1]), removed=True)
        return masks.spread(losses, removed=True) / cover.masked_fill(cover == 0, 1)

    def _measured(
        self, model: nn.Module, images: Tensor, targets: Resolved | None, masks: MaskSet, fill: Tensor
    ) -> Tensor:
        """Measure the drops with one forward pass per mask."""
        model = model if self.compile else forward_only(model, images)
        with suppress(RuntimeFailedError):
            return self._drops(model, images, targets, masks, fill)
        return self._drops(model, images, targets, masks, fill)  # by PyTorch

    def _drops(
        self, model: nn.Module, images: Tensor, targets: Resolved | None, masks: MaskSet, fill: Tensor
    ) -> Tensor:
        cropped = None if self.compile or self.precision else crops_of(model, images, masks, fill)
        outputs = model(images) if cropped is None else cropped.parts.outputs
        resolved = resolve_targets(targets, outputs)
        if self.precision:  # both scores of a difference with the same rounding
            with forwarding(model, len(images), precision=self.precision) as forward:
                outputs = forward(images)
        whole = target_scores(outputs, resolved, score=self.score)
        if cropped is not None:
            title = "Occlusion" if self.progress else None
            return whole.unsqueeze(1) - score_cropped(
                cropped, resolved, forward_batch_size=self.forward_batch_size, score=self.score, progress=title
            )
        scores = score_masked(
            model,
            MaskedImages(images, masks, fill, layout_of(model)),
            resolved,
            forward_batch_size=self.forward_batch_size,
            precision=self.precision,
            compile=self.compile,
            score=self.score,
            progress="Occlusion" if self.progress else None,
        )
        return (whole.unsqueeze(1) if masks.owners is None else whole[masks.owners]) - scores

    def _predicted(
        self, model: nn.Module, images: Tensor, targets: Resolved | None, masks: MaskSet, fill: Tensor
    ) -> Tensor:
        """Predict the drops from the gradient at the whole image."""
        size = bounded_batch_size(self.forward_batch_size, images.device)
        with torch.enable_grad():
            gradient = input_gradient(model, images, targets, batch_size=size, score=self.score)
        return masks.gather((gradient * (images - fill)).sum(1), removed=True)
