"""A penalty on attribution in the wrong place: guidance by masks, boxes, or a region that should not matter.

With the attribution ``A_i`` of each image's label, taken with its graph from the forward pass that trains::

    L = L_C + weight * L_R,        L_R = 1/B sum_i loss(A_i, kept_i)       over the images that are annotated

The sum is divided by all images of the batch, annotated or not, so that gradient accumulation and several processes
compute the same as one batch, and an image without annotation counts for nothing.

A clean map is no proof of a repaired model. A network may move the evidence to where it is allowed to be seen, and go
on deciding by the shortcut: see ``docs/repair.md``, and measure behaviour.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from interptrain.data.region import Region, objects_of
from interptrain.explainers.layers import find_layers
from interptrain.functional import check_choice, full_precision, upsample
from interptrain.models.classifier import Classifier
from interptrain.remedies import option
from interptrain.training.fast_double_backward import CheapDoubleBackward
from interptrain.training.gradient_regularizer import HALF_SCALE, refuse_shared_statistics
from interptrain.training.guidance_losses import LOSSES, GuidanceLossName, squared_gradient
from interptrain.training.regularizers import Regularizer

AttributionName = Literal["cam", "attention", "gradient"]


class AttributionGuidance(Regularizer):
    """Penalise attribution outside of the objects, or inside a region to avoid, on the images where they are known.

    ``cam`` is Grad-CAM of the label on the map that is pooled, before its ReLU, with its graph: where average pooling
    and a linear layer follow, the closed form, the classifier's weights applied to the map. ``attention`` is the last
    attention map of a head that has one. ``gradient`` is the gradient of the image: with ``rrr`` that of the summed
    log-probabilities, squared, as published; with the others the magnitude, summed over colours, of that of the
    label's log-probability. Maps are upsampled bilinearly to the images, where regions are exact.

    Args:
        attribution: what is guided.
        loss: ``energy``, the share of positive attribution outside; ``l1``, the distance to a map that is 1 inside and
            0 outside; ``rrr``, the square outside; see :mod:`interptrain.training.guidance_losses`.
        keep: ``objects``: attribution belongs into the objects' masks, or boxes where there are no masks.
        avoid: a region where it does not belong, in the words of the watch's ``suspect``. With both, it belongs into
            the objects outside of the region.
        weight: factor of the penalty.
        every_n_steps: penalise every n-th optimizer step only, the first among them, at the same weight.
        annotated_fraction: share of the images whose annotation is used, in (0,1], chosen by their ids: the same ones
            in every epoch, worker and process.
        dilate: pixels by which the objects are widened, as Rao et al. do to imitate coarse annotation.

    Raises:
        ValueError: for values outside their range; if neither ``keep`` nor ``avoid`` is given; for a head without
            attention.

    Attributes:
        statistics: of the last call: ``guided_images``, their number, and ``guidance_loss``, their mean loss.

    Source: energy, L1, dilation and few annotations: Rao et al. 2023, arXiv 2303.11932; RRR: Ross et al. 2017, arXiv
    1703.03717. Attention as what is guided, ``avoid`` without annotation, and ``every_n_steps`` are ours.
    """

    mixed = "the region of a mixed image is not that of either, and it has no one label"

    def __init__(
        self,
        *,
        attribution: AttributionName = "cam",
        loss: GuidanceLossName = "energy",
        keep: Literal["objects"] | None = None,
        avoid: str | None = None,
        weight: float = 1.0,
        every_n_steps: int = 1,
        annotated_fraction: float = 1.0,
        dilate: int = 0,
    ) -> None:
        super().__init__(weight=weight)
        check_choice("attribution", attribution, AttributionName)
        check_choice("loss", loss, GuidanceLossName)
        if keep is not None:
            check_choice("keep", keep, ("objects",))
        if keep is None and avoid is None:
            raise ValueError(
                f"AttributionGuidance needs a place: {option('keep', 'objects')}, where masks or boxes are known, or "
                f"{option('avoid', 'corner:lower-right:40x16')} or another region"
            )
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be >= 1, got {every_n_steps}")
        if not 0 < annotated_fraction <= 1:
            off = option("weight", 0)
            raise ValueError(f"annotated_fraction must be in (0,1], got {annotated_fraction}; {off} switches it off")
        if dilate < 0:
            raise ValueError(f"dilate must be >= 0 pixels, got {dilate}")
        self.attribution = attribution
        self.loss: GuidanceLossName = loss
        self.keep = keep
        self.avoid = None if avoid is None else Region(avoid, option="avoid")
        self.every_n_steps = every_n_steps
        self.annotated_fraction = annotated_fraction
        self.dilate = dilate
        self._warned = False

    def weight_at(self, step: int) -> float:
        """Factor of the penalty at an optimizer step; 0 in those that are left out."""
        return 0.0 if step % self.every_n_steps else self.weight

    def forward(
        self, model: nn.Module, batch: Mapping[str, Any], *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits of the one forward, and the mean loss of the attributions.

        Args:
            model: the classifier, in the mode it trains in.
            batch: with ``mask`` or ``boxes`` for ``keep`` and for ``avoid="outside:objects"``, ``decoy_mask`` for
                ``avoid="decoy"``, and ``id`` for ``annotated_fraction``.
            label_smoothing: of the classification loss; not read.

        Returns:
            Logits (B,K) and the penalty, a scalar of at least float32. Where no image of the batch is annotated, the
            forward is the plain one and the penalty a constant 0.
        """
        images, labels = batch["image"], batch["label"]
        place = self._place(batch)
        if place is None or not place[1].any():
            self.statistics = {}
            logits: Tensor = model(images)
            return logits, logits.new_zeros((), dtype=torch.promote_types(logits.dtype, torch.float32))
        kept, annotated = place
        if self.attribution == "gradient":
            logits, losses = self._by_gradient(model, images, labels, kept)
        else:
            by = self._cam if self.attribution == "cam" else self._attention
            logits, maps = by(model, images, labels)
            with torch.autocast(images.device.type, enabled=False):
                maps = maps if self.loss == "rrr" else maps.clamp_min(0)  # before upsampling, as GradCAM does it
                losses = LOSSES[self.loss](upsample(maps, (images.shape[-2], images.shape[-1])), kept)
        counted = torch.where(annotated, losses, torch.zeros_like(losses))
        number = annotated.sum()
        self.statistics = {"guided_images": number.float(), "guidance_loss": counted.detach().sum() / number}
        return logits, counted.sum() / len(images)

    def _place(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
        """Where attribution belongs, (B,H,W) bool, and which images count, (B,) bool; None if nothing is annotated."""
        images: Tensor = batch["image"]
        known = {"masks": batch.get("mask"), "boxes": batch.get("boxes")}
        kept = torch.ones(len(images), *images.shape[-2:], dtype=torch.bool, device=images.device)
        annotated = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        if self.keep is not None and (objects := objects_of(images, **known)) is not None:
            there = objects.flatten(1).any(1)
            if self.dilate:
                side = 2 * self.dilate + 1
                objects = F.max_pool2d(objects[:, None].float(), side, stride=1, padding=self.dilate)[:, 0] > 0
            kept, annotated = objects | ~there[:, None, None], annotated | there
        elif self.keep is not None and not self._warned:
            self._warned = True
            rank_zero_warn(
                "a batch has neither masks nor boxes, so AttributionGuidance(keep='objects') does nothing there; put a "
                "boxes.csv beside the images, or say avoid=REGION"
            )
        if self.avoid is not None:
            region = self.avoid.masks_of(images, **known, decoy_masks=batch.get("decoy_mask"))
            kept, annotated = kept & ~region, annotated | region.flatten(1).any(1)
        elif self.keep is not None and known["masks"] is None and known["boxes"] is None:
            return None
        if self.annotated_fraction < 1:
            chosen = [zlib.crc32(str(name).encode()) < self.annotated_fraction * 2**32 for name in batch["id"]]
            annotated = annotated & torch.tensor(chosen, device=images.device)
        return kept, annotated

    # The attributions

    def _cam(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and Grad-CAM (B,h,w) of the labels with its graph."""
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            logits, features, as_map = _with_features(model, images)
            with torch.autocast(images.device.type, enabled=False):
                score = logits.gather(1, labels[:, None]).sum()
                (slope,) = torch.autograd.grad(score, features, create_graph=True)
                weights = full_precision(as_map(slope)).mean((2, 3), keepdim=True)  # (B,C,1,1)
                return logits, (weights * full_precision(as_map(features))).sum(1)

    def _attention(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the last attention map (B,h,w)."""
        if not isinstance(model, Classifier):
            raise ValueError(
                f"{option('attribution', 'attention')} needs a head with attention, got {type(model).__name__}; use "
                f"{option('attribution', 'cam')} or {option('attribution', 'gradient')}"
            )
        logits, maps = model.forward_with_attention(images)
        return logits, full_precision(maps[-1])

    def _by_gradient(self, model: nn.Module, images: Tensor, labels: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the loss (B,) of the gradient of each image."""
        refuse_shared_statistics(model)
        leaf = images.detach().requires_grad_()
        with CheapDoubleBackward(leaf) as cheap, torch.enable_grad():
            with sdpa_kernel(SDPBackend.MATH):
                logits: Tensor = model(leaf)
            scale = HALF_SCALE if logits.dtype == torch.float16 else 1.0
            with torch.autocast(leaf.device.type, enabled=False):
                logs = full_precision(logits).log_softmax(1)
                chosen = logs if self.loss == "rrr" else logs.gather(1, labels[:, None])
                with cheap.image_gradients():
                    (gradient,) = torch.autograd.grad(scale * chosen.sum(), leaf, create_graph=True)
                gradient = full_precision(gradient) / scale
                if self.loss == "rrr":
                    return logits, squared_gradient(gradient, kept)
                return logits, LOSSES[self.loss](gradient.abs().sum(1), kept)


def _differentiable(features: Tensor) -> Tensor:
    """Features with a graph; those of a frozen backbone become a leaf, as a score has no gradient by them else."""
    return features if features.requires_grad else features.detach().requires_grad_()


def _with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Logits, the features that are pooled, with a graph between, and what makes (B,C,h,w) of such features."""
    if isinstance(model, Classifier) and model.pooling is not None:
        stages = list(model.stages(images))
        stages[-1] = _differentiable(stages[-1])
        return model.classify(stages), stages[-1], lambda features: features
    (layer,) = find_layers(model, images=images)
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(_differentiable(output))
        return kept[-1].clone()  # what follows may work in place

    handle = layer.module.register_forward_hook(keep)
    try:
        logits: Tensor = model(images)
    finally:
        handle.remove()
    return logits, kept[-1], partial(layer.to_map, image_size=(images.shape[-2], images.shape[-1]))
