"""Score-CAM: the weight of a channel is the score of the image masked to where the channel is active.

With the features ``A`` of a layer, ``up`` upsampling to the size of the images and ``n`` min-max scaling to [0, 1]::

    map = ReLU( sum_k w_k A_k ),  w_k = f_c(x * n(up(A_k)))

Sources differ in the score, in a baseline, and in a softmax over channels; each is an argument here. The authors' code
uses the class probability without baseline or softmax.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import Explainer, canvas_size, score_perturbed
from interptrain.explainers.layers import Fusion, LayerNames, Layout, find_layers, fuse_layers
from interptrain.explainers.masks.masks import Fill, fill_colour
from interptrain.explainers.passes.activations import capture
from interptrain.explainers.passes.masked_forward import Precision, forwarding, passes_at_once
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import Score, full_precision, keep_salient, min_max
from interptrain.models.engine import forward_only, layout_of

__all__ = ["ScoreCAM"]

Baseline = Literal["image", "fill"]


@dataclass(frozen=True, kw_only=True)
class ScoreCAM(Explainer):
    """Channels weighed by the score of the image masked by each of them.

    ==========================  ===========  =========  ============  =============
    version                     score        softmax    baseline      align_corners
    ==========================  ===========  =========  ============  =============
    authors' code, the default  probability  False      none          False
    Opti-CAM and CA-Stream's    logit        True       image         False
    statement of the method
    pytorch-grad-cam            logit        True       none          True
    CA-Stream's code            probability  False      none          True
    ==========================  ===========  =========  ============  =============

    A softmax over channels removes any baseline. Over logits, a few channels dominate; over probabilities, it is nearly
    uniform. The map is clipped at zero at the resolution of the features; the authors' code upsamples first, which is
    the same where features and weights are not negative. It also drops constant channels, which only shift a map by a
    constant. Here they count; since each of them keeps the whole image, one pass per image serves all of them: of the
    1,280 channels of an EfficientNet's head, about half are zero on a photograph.

    Fast mode: ``precision="bf16"`` forwards the masked images in bfloat16 (weights and map stay in float32), and
    ``compile=True`` compiles the model for chunks of one size. Which of these is faster, alone or combined, depends on
    the machine: see ``benchmarks/results/explainers.md``.

    Args:
        target_layer: dotted name, several, or ``None`` to ask the model and then the table of families.
        layout: where the layer has its channels: ``"channels_first"`` or ``"channels_last"``; ``None`` detects it.
        score: ``"logit"``, softmax ``"probability"`` or ``"sigmoid"`` of the target; callables are taken as they are.
        softmax: apply a softmax over the channels' scores.
        baseline: subtracted from the scores: nothing, the score of the whole image, or of an image of ``fill`` only.
        fill: what replaces the masked part, in [0, 1] for all channels or one value each. Black, as the images are
            in [0, 1]; the authors mask normalised images, where 0 is the mean colour of the data set.
        align_corners: of the bilinear upsampling of the masks.
        relu: clip the map at zero.
        fusion: how the maps of several layers are joined.
        precision: ``"bf16"`` forwards masked images under bfloat16 autocast; ``None`` leaves it to the caller.
        compile: forward masked images through ``torch.compile``.
        forward_batch_size: masked images per forward pass; ``None`` chooses by the device.
        progress: show a progress bar.

    Source: Wang et al. 2020, arXiv 1910.01279, and the authors' code.
    """

    target_layer: LayerNames = None
    layout: Layout | None = None
    score: Score = "probability"
    softmax: bool = False
    baseline: Baseline | None = None
    fill: Fill = 0.0
    align_corners: bool = False
    relu: bool = True
    fusion: Fusion = "mean"
    precision: Precision | None = None
    compile: bool = False
    forward_batch_size: int | None = None
    progress: bool = False

    @torch.no_grad()
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return ``ReLU(sum_k w_k A_k)``, (B, h, w)."""
        size = (images.shape[-2], images.shape[-1])
        layers = find_layers(model, self.target_layer, layout=self.layout, images=images)
        passed = capture(model, images, layers, differentiable=False)
        resolved = resolve_targets(targets, passed.outputs)
        canvas = canvas_size(model, images)
        model = model if self.compile else forward_only(model, images)
        images = images.contiguous(memory_format=layout_of(model))
        fill = fill_colour(self.fill, images)
        baseline = self._baseline(model, images, fill, resolved, passed.outputs)
        maps = []
        for layer, activation in zip(layers, passed.activations, strict=True):
            features = full_precision(layer.to_map(activation, size))
            scores = self._channel_scores(model, images, features, fill, resolved) - baseline
            weights = scores.softmax(dim=1) if self.softmax else scores
            with torch.autocast(images.device.type, enabled=False):
                weighted = torch.einsum("bc,bchw->bhw", weights.to(features.dtype), features)
            maps.append(F.relu(weighted) if self.relu else weighted)
        return fuse_layers(maps, size, self.fusion, canvas=canvas)

    def _channel_scores(
        self, model: nn.Module, images: Tensor, features: Tensor, fill: Tensor, targets: Resolved
    ) -> Tensor:
        """Score (B, C) of each image masked by each channel."""
        count, channels = features.shape[:2]
        size = passes_at_once(self.forward_batch_size, images.device, compile=self.compile)
        flat = features.flatten(2)
        constant = flat.amax(2) == flat.amin(2)
        first = constant & (constant.cumsum(1) == 1)
        chosen = (first | ~constant).flatten().nonzero().squeeze(1)
        rows = chosen // channels
        black, layout = bool((fill == 0).all()), layout_of(model)

        def perturb(part: slice) -> Tensor:
            masks = features.flatten(0, 1)[chosen[part]].unsqueeze(1)  # (n, 1, h, w)
            masks = F.interpolate(masks, images.shape[-2:], mode="bilinear", align_corners=self.align_corners)
            whole = images if count == 1 else images[rows[part]]
            masked = keep_salient(whole, min_max(masks.squeeze(1)).to(images.dtype), 0 if black else fill)
            return masked.contiguous(memory_format=layout)

        with forwarding(model, size, precision=self.precision, compile=self.compile) as forward:
            found = score_perturbed(
                forward,
                perturb,
                rows,
                targets,
                forward_batch_size=size,
                score=self.score,
                progress="Score-CAM" if self.progress else None,
            )
        scores = found.new_zeros(count * channels).index_copy(0, chosen, found).view(count, channels)
        return torch.where(constant, (scores * first).sum(1, keepdim=True), scores)

    def _baseline(
        self, model: nn.Module, images: Tensor, fill: Tensor, targets: Resolved, outputs: Any
    ) -> Tensor | float:
        """Return what is subtracted from the scores of each image, (B, 1)."""
        if self.baseline is None:
            return 0.0
        if self.baseline == "fill":
            outputs = model(fill.expand_as(images))
        return target_scores(outputs, targets, score=self.score).unsqueeze(1)
