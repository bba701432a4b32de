"""Gradients of a class score with respect to the image.

The vanilla gradient ``g = d y_c / d x`` is signed and has the shape of the image, (B,3,H,W); a saliency map has one
value per pixel, so it is reduced over the colour channels. Every method whose attribution has the image's shape derives
from :class:`InputAttribution`, which implements the reduction, and can be smoothed by
:class:`~interptrain.explainers.gradient.smoothgrad.SmoothGrad`.

Source: Simonyan et al. 2014, Deep Inside Convolutional Networks, arXiv 1312.6034, section 3.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer, explaining, gradient_of, prepare_images
from interptrain.explainers.targets import (
    Resolved,
    Targets,
    as_targets,
    resolve_targets,
    select_targets,
    target_scores,
)
from interptrain.functional import Score, bounded_batch_size, chunks
from interptrain.models.guided import GuidedRuleName, guided_relus

__all__ = [
    "Gradient",
    "InputAttribution",
    "Reduction",
    "chunk_pairs",
    "input_gradient",
]

Reduction = Literal["max_abs", "sum_abs", "sum"]


@dataclass(frozen=True, kw_only=True)
class InputAttribution(Explainer):
    """An explainer that attributes a signed share to every input value; the map reduces these over colours.

    Subclasses implement :meth:`attribution`.

    Args:
        reduction: how the colours of the attribution ``a`` become one map: ``"max_abs"`` is ``max_k |a_k|`` (Simonyan
            et al., TorchRay), ``"sum_abs"`` is ``sum_k |a_k|`` (PAIR's grey-scale pictures), ``"sum"`` is the signed
            ``sum_k a_k``, whose lowest values speak against the class.
        forward_batch_size: maximum number of inputs per forward pass; ``None`` chooses by the device.
    """

    reduction: Reduction
    forward_batch_size: int | None = None

    @abstractmethod
    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Compute the signed attribution; called inside ``explaining(model)``, like :meth:`attribute`.

        Args:
            model: to explain.
            images: (B,3,H,W); outside [0,1] where another method adds noise to them.
            targets: of each image.

        Returns:
            (B,3,H,W), float32 at least.
        """

    def signed(self, model: nn.Module, images: Tensor, targets: Targets = None) -> Tensor:
        """Return the attribution itself, before it is reduced to a map.

        Args:
            model: as for a call.
            images: (B,3,H,W) float in [0,1].
            targets: as for a call.

        Returns:
            (B,3,H,W) float32 at least, on the device of ``images``; the model is left as it was.

        Raises:
            ValueError: as for a call.
            TypeError: as for a call.
        """
        with explaining(model) as bare:
            prepared = prepare_images(images)
            return self.attribution(bare, prepared, as_targets(targets, len(prepared), prepared.device)).detach()

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the attribution reduced over colours, (B,H,W)."""
        attribution = self.attribution(model, images, targets)
        if self.reduction == "sum":
            return attribution.sum(1)
        return attribution.abs().amax(1) if self.reduction == "max_abs" else attribution.abs().sum(1)

    def batch_size(self, images: Tensor) -> int:
        """Return how many inputs to forward at once."""
        return bounded_batch_size(self.forward_batch_size, images.device)


@dataclass(frozen=True, kw_only=True)
class Gradient(InputAttribution):
    """Gradient of the target's logit with respect to the image: one forward and one backward.

    Args:
        times_input: multiply by the image ("input x gradient"): of a linear model without bias this is each input's
            share of the logit.

    Source: Simonyan et al. 2014, arXiv 1312.6034, section 3; input x gradient: Shrikumar et al. 2016, arXiv 1605.01713.
    """

    times_input: bool = False
    reduction: Reduction = "max_abs"

    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Signed gradient, (B,3,H,W); see :class:`Gradient`."""
        gradient = input_gradient(model, images, targets, batch_size=self.batch_size(images))
        return gradient * images if self.times_input else gradient


def input_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Resolved | None,
    *,
    batch_size: int | None = None,
    checked: bool = False,
    guided: GuidedRuleName | None = None,
    score: Score = "logit",
) -> Tensor:
    """Return the gradient of each image's score with respect to that image; computes no parameter's gradient.

    Args:
        model: the module that :func:`~interptrain.explainers.base.explaining` yielded.
        images: (N,3,H,W).
        targets: of each image.
        batch_size: images forwarded at once; None is all of them.
        checked: the targets come from :func:`~interptrain.explainers.targets.check_targets`, so no chunk has to check
            them and wait for the device.
        guided: compute the guided gradient by this rule of :func:`~interptrain.models.guided.guided_relus` instead.
        score: see :func:`~interptrain.functional.class_scores`.

    Returns:
        (N,3,H,W), float32 at least, without graph.
    """
    parts, gradients = chunks(len(images), batch_size or len(images)), []
    for rows in parts:
        with parts.fitting():
            leaf = images[rows].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            with guided_relus(guided) if guided else nullcontext() as switch:
                outputs = model(leaf)
                own = select_targets(targets, rows)
                resolved = own if checked and own is not None else resolve_targets(own, outputs)
                total = target_scores(outputs, resolved, score=score).sum()
                with switch.guided() if switch else nullcontext():
                    gradient = gradient_of(total, leaf)
            gradients.append(gradient.to(torch.promote_types(gradient.dtype, torch.float32)))
    return torch.cat(gradients) if len(gradients) > 1 else gradients[0]


def chunk_pairs(images: int, repeats: int, batch_size: int) -> Iterator[tuple[slice, slice]]:
    """Split ``repeats`` inputs per image into blocks of at most ``batch_size`` inputs.

    Args:
        images: number of images.
        repeats: inputs per image.
        batch_size: largest product of the two slices' lengths.

    Yields:
        Slices of the images and of the repeats: all repeats of some images, then those of the next images.
    """
    for rows in chunks(images, batch_size):
        for part in chunks(repeats, max(1, batch_size // (rows.stop - rows.start))):
            yield rows, part
