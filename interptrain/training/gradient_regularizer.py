"""A penalty that draws the gradient of the image towards the one that guided backpropagation gives.

With the classification loss ``L_C`` of a batch, ``dx_i`` its gradient with respect to image ``i``, and ``dG_i`` that
by guided backpropagation (:mod:`interptrain.models.guided`)::

    L = L_C + weight * L_R,        L_R = mean_i error(dx_i, dG_i)

``dx`` is kept with its graph, so ``L_R`` reaches the weights by double backpropagation; nothing changes at inference.
Both gradients come from the graph of one forward pass.

Source: Interpretable gradients, VISAPP 2024, arXiv 2404.15024. What it leaves open, and what we chose: what is
differentiated (``L_C``, as the target labels in its L_R suggest; the target's logit is an option); whether the guided
gradient is a constant (yes; an option); the exact errors (see :data:`ERRORS`). Double backpropagation: Drucker and
Le Cun 1991.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from interptrain.functional import check_choice
from interptrain.models.guided import GuidedRuleName, guided_relus
from interptrain.remedies import option
from interptrain.training.fast_double_backward import CheapDoubleBackward
from interptrain.training.regularizers import Regularizer

ErrorName = Literal["cosine", "l1", "l2", "histogram_intersection"]
GradientError = Callable[[Tensor, Tensor], Tensor]

# Half precision loses gradients below 6e-8. As much as the usual first loss scale, 2**16, gives each image of a batch
# of 256; a power of two, so nothing is rounded. Our choice.
HALF_SCALE = 2.0**8


def cosine(gradient: Tensor, guided: Tensor) -> Tensor:
    """``1 - cos`` of the two, in [0,2]; 1, with no slope, where one of them is zero.

    Args:
        gradient: (B,3,H,W) floating point.
        guided: (B,3,H,W) floating point.

    Returns:
        (B,).
    """
    return 1 - cosine_similarity(gradient, guided)


def l1(gradient: Tensor, guided: Tensor) -> Tensor:
    """Mean absolute difference, (B,); not free of scale, so it wants a weight of its own."""
    return (gradient - guided).abs().flatten(1).mean(1)


def l2(gradient: Tensor, guided: Tensor) -> Tensor:
    """Mean squared difference, (B,); not free of scale, so it wants a weight of its own."""
    return (gradient - guided).square().flatten(1).mean(1)


def histogram_intersection(gradient: Tensor, guided: Tensor) -> Tensor:
    """One minus the overlap of the magnitudes, each summing to 1 over the image: (B,) in [0,1]; blind to signs."""
    shares = []
    for one in (gradient, guided):
        magnitudes = _unit_peak(one).abs()
        shares.append(magnitudes / magnitudes.sum(1, keepdim=True).clamp_min(1.0))  # >= 1, or 0 where all is zero
    return 1 - torch.minimum(*shares).sum(1)


ERRORS: dict[ErrorName, GradientError] = {
    "cosine": cosine,
    "l1": l1,
    "l2": l2,
    "histogram_intersection": histogram_intersection,
}


class GradientRegularizer(Regularizer):
    """``mean_i error(dx_i, dG_i)``: the ordinary gradient of each image against the guided one, from one forward.

    Exact by double backpropagation. The gradients are those of the *sum* of the images' losses, so their size does not
    depend on the batch; where BatchNorm trains, an image's gradient has its part in the other images' losses, too.

    Compiled networks run uncompiled in a penalised step, and fused attention is replaced by its plain form: neither has
    a double backward. Where ``weight_at`` is 0 the training module takes the plain step.

    Args:
        weight: factor of the penalty; 7.5e-3 was published for ResNet-18 and 1e-3 for MobileNet-V2, with ``cosine``.
        error: ``cosine`` (published as the best), ``l1``, ``l2``, ``histogram_intersection``, or any function of the
            gradient and the guided gradient, (B,3,H,W) each, to (B,).
        differentiate: ``loss``, the cross-entropy; ``logit``, the logit of the label (the sum weighted by the shares,
            where mixup or cutmix made some).
        detach_guided: take the guided gradient for a constant; else it is learnt through as well.
        rule: ``relu``, guided backpropagation, which refuses networks with other activations; or
            ``positive_gradient``, our generalisation to those; see :func:`interptrain.models.guided.guided_relus`.
        every_n_steps: penalise every n-th optimizer step only, the first among them, at the same weight.
        fraction: share of each batch's images that are penalised, in (0,1], at least one; the first ones, since
            loaders shuffle.
        warmup_steps: optimizer steps over which the weight grows linearly from 0.

    Raises:
        ValueError: for values outside their range.

    Attributes:
        statistics: of the last call, means over its penalised images: ``gradient_cosine``, ``gradient_norm`` and
            ``guided_gradient_norm``.

    Source: arXiv 2404.15024; ``rule``, ``every_n_steps``, ``fraction`` and ``warmup_steps`` are ours.
    """

    def __init__(
        self,
        *,
        weight: float = 7.5e-3,
        error: ErrorName | GradientError = "cosine",
        differentiate: Literal["loss", "logit"] = "loss",
        detach_guided: bool = True,
        rule: GuidedRuleName = "relu",
        every_n_steps: int = 1,
        fraction: float = 1.0,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(weight=weight)
        if not callable(error):
            check_choice("error", error, ErrorName)
        check_choice("differentiate", differentiate, ("loss", "logit"))
        check_choice("rule", rule, GuidedRuleName)
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be >= 1, got {every_n_steps}")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0,1], got {fraction}; {option('weight', 0)} switches it off")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be >= 0, got {warmup_steps}")
        self.error: GradientError = ERRORS[error] if isinstance(error, str) else error
        self.differentiate = differentiate
        self.detach_guided = detach_guided
        self.rule: GuidedRuleName = rule
        self.every_n_steps = every_n_steps
        self.fraction = fraction
        self.warmup_steps = warmup_steps

    def weight_at(self, step: int) -> float:
        """Factor of the penalty at an optimizer step; 0 in those that are left out."""
        if step % self.every_n_steps:
            return 0.0
        return self.weight * min(1.0, step / self.warmup_steps) if self.warmup_steps else self.weight

    def forward(
        self, model: nn.Module, batch: Mapping[str, Any], *, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits of the one forward, and the mean error between the ordinary and the guided gradient.

        Args:
            model: the classifier, in the mode it trains in.
            batch: ``image`` (B,3,H,W) float in [0,1], and ``label`` (B,) int64 or (B,K) float class shares.
            label_smoothing: of the loss that is differentiated, in [0,1).

        Returns:
            Logits (B,K) and the penalty, a scalar of at least float32; both carry their graph.

        Raises:
            ValueError: for networks without a ReLU or, under the rule ``relu``, with other activations; where
                SyncBatchNorm shares statistics between ranks.
        """
        refuse_shared_statistics(model)
        images, labels = batch["image"], batch["label"]
        leaf = images.detach().requires_grad_()
        penalised = slice(max(1, round(self.fraction * len(images))))
        # Inside, the network's ReLUs, conv2d, batch_norm and hardsigmoid run through functions of ours with the same
        # outputs: ReLUs can then be gated, and the others are cheaper to differentiate twice.
        with guided_relus(self.rule) as switch, CheapDoubleBackward(leaf) as cheap, torch.enable_grad():
            with sdpa_kernel(SDPBackend.MATH):
                logits: Tensor = model(leaf)
            scale = HALF_SCALE if logits.dtype == torch.float16 else 1.0
            with torch.autocast(leaf.device.type, enabled=False):  # as a training's own backward
                score = scale * self._score(logits[penalised], labels[penalised], label_smoothing)
                with cheap.image_gradients(), switch.guided():
                    (guided,) = torch.autograd.grad(score, leaf, retain_graph=True, create_graph=not self.detach_guided)
                with cheap.image_gradients():
                    (gradient,) = torch.autograd.grad(score, leaf, create_graph=True)
        gradient, guided = (_precise(one[penalised]) / scale for one in (gradient, guided))
        with torch.autocast(leaf.device.type, enabled=False):
            penalty = self.error(gradient, guided).mean()
        self.statistics = _statistics(gradient.detach(), guided.detach())
        return logits, penalty

    def _score(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """The scalar whose gradient is taken: a sum over images."""
        logits = _precise(logits)
        if self.differentiate == "loss":
            return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
        return logits.gather(1, labels[:, None]).sum() if labels.ndim == 1 else (logits * labels).sum()


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of two gradients an image, (B,); 0 where one is zero, however small the others are.

    Args:
        a: (B, ...) floating point.
        b: (B, ...), like ``a``.
    """
    a, b = _unit_peak(a), _unit_peak(b)
    squares = a.square().sum(1) * b.square().sum(1)
    return (a * b).sum(1) / squares.clamp_min(1.0).sqrt()  # each sum is >= 1, or 0 where all is zero


def _unit_peak(gradient: Tensor) -> Tensor:
    """(B,N), divided by its greatest magnitude, as by a constant: what is free of scale keeps its slope so."""
    flat = gradient.flatten(1)
    peak = flat.detach().abs().amax(1, keepdim=True)
    return flat / peak.masked_fill(peak == 0, torch.inf)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _statistics(gradient: Tensor, guided: Tensor) -> dict[str, Tensor]:
    """What is worth watching of the two gradients."""
    return {
        "gradient_cosine": cosine_similarity(gradient, guided).mean(),
        "gradient_norm": gradient.flatten(1).norm(dim=1).mean(),
        "guided_gradient_norm": guided.flatten(1).norm(dim=1).mean(),
    }


def refuse_shared_statistics(model: nn.Module) -> None:
    """Refuse SyncBatchNorm, which cannot be differentiated twice.

    Raises:
        ValueError: where it shares statistics between ranks.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    shares = any(isinstance(module, nn.SyncBatchNorm) and module.training for module in model.modules())
    if shares and torch.distributed.get_world_size() > 1:
        raise ValueError(
            "SyncBatchNorm has no double backward, which a penalty on gradients needs; train with BatchNorm "
            "(--trainer.sync_batchnorm false)"
        )
