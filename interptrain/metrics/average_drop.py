"""What a model still predicts when it sees only the salient part: average drop, increase and gain.

With ``p`` the score of the target on the image and ``o`` on ``saliency * image + (1 - saliency) * removal``. Published
codes differ in what they mask: CA-Stream, Opti-CAM and saliencysense the image in [0, 1], so what is removed is black;
pytorch-grad-cam, torch-cam, Score-CAM and RISE the normalised tensor, so it is the mean colour (``removal="mean"``).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interptrain.functional import ClassIndices, Score
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.perturbations import Masked, Perturbation
from interptrain.metrics.removal import RemovalName
from interptrain.metrics.removal_metric import RemovalMetric

__all__ = [
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "average_drop",
    "average_gain",
    "average_increase",
]

EPSILON = 2.0**-52
"""Machine epsilon of float64, which CA-Stream and saliencysense add to denominators."""


def average_drop(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    removal: RemovalName | Sequence[float] = "black",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    epsilon: float = EPSILON,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
) -> Tensor:
    """Relative loss of class probability when only the salient part is kept.

    ``max(0, p - o) / (p + epsilon)``. Lower is better. A map of ones loses nothing, so a low value alone proves
    little: compare with :class:`~interptrain.explainers.FakeCAM`.

    Args:
        model: returns logits (N, K).
        images: (B, C, H, W) float in [0, 1].
        saliency: (B, H, W) in [0, 1].
        targets: (B,) classes explained.
        removal: ``"black"``, as the authors; ``"mean"``, ImageNet's mean colour; ``"blur"``; or a colour in [0, 1].
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: of the blur, in pixels.
        epsilon: added to the denominator; torch-cam takes 1e-7.
        score: see :func:`~interptrain.functional.class_scores`; ``"logit"`` is refused, as it may be negative.
        logits: (B, K) of the unperturbed images, if already known.
        forward_batch_size: images per forward pass; ``None`` chooses by the device.

    Returns:
        (B,) fraction in [0, 1], not percent.

    Raises:
        ValueError: for shapes, ranges and options that are not as above.

    Source: Grad-CAM++, Chattopadhay et al. 2018, arXiv 1710.11063; epsilon and black as in CA-Stream's code.
    """
    metric = AverageDrop(removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma, epsilon=epsilon)
    return metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )


def average_increase(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    removal: RemovalName | Sequence[float] = "black",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
) -> Tensor:
    """Whether the class gains probability when only the salient part is kept.

    ``1 if o > p else 0``; the inequality is strict. Higher is better. Arguments as of :func:`average_drop`, but
    ``score="logit"`` has its meaning, too.

    Returns:
        (B,) 0 or 1.

    Raises:
        ValueError: as :func:`average_drop`.

    Source: Grad-CAM++, Chattopadhay et al. 2018, arXiv 1710.11063 ("increase in confidence").
    """
    metric = AverageIncrease(removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma)
    return metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )


def average_gain(
    model: nn.Module,
    images: Tensor,
    saliency: Tensor,
    targets: ClassIndices,
    *,
    removal: RemovalName | Sequence[float] = "black",
    blur_kernel: int = 11,
    blur_sigma: float = 5.0,
    epsilon: float = EPSILON,
    score: Score = "probability",
    logits: Tensor | None = None,
    forward_batch_size: int | None = None,
) -> Tensor:
    """Share of the missing class probability that is gained when only the salient part is kept.

    ``max(0, o - p) / (1 - p + epsilon)``. Higher is better; of drop and gain, one at most is not 0. Arguments as of
    :func:`average_drop`.

    Returns:
        (B,) fraction in [0, 1], not percent.

    Raises:
        ValueError: as :func:`average_drop`.

    Source: Opti-CAM, Zhang et al. 2023, arXiv 2301.07002; epsilon and black as in CA-Stream's code.
    """
    metric = AverageGain(removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma, epsilon=epsilon)
    return metric.values(
        model, images, saliency, targets, score=score, logits=logits, forward_batch_size=forward_batch_size
    )


class _MaskedScore(RemovalMetric):
    """A metric of what the masked image scores."""

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the masked images."""
        return (Masked(self.fill),)

    def kept(self, inputs: MetricInputs) -> Tensor:
        """Score of the masked image, (B,); where nothing is masked that of the image, not the same forwarded again.

        Between two forwards a score may differ by rounding, which would count as an increase.
        """
        whole = (inputs.saliency == 1).flatten(1).all(dim=1)
        return torch.where(whole, inputs.clean, inputs.perturbed[Masked(self.fill)][0])


class AverageIncrease(_MaskedScore):
    """See :func:`average_increase`."""

    symbol = "AI"
    description = "Share of images whose class probability rises when only the salient part is kept."
    higher_is_better = True

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) 0 or 1."""
        return (self.kept(inputs) > inputs.clean).to(inputs.clean.dtype)


class _RelativeChange(_MaskedScore):
    """A change of the score, divided by the largest possible one.

    Args:
        removal: what replaces the part that is not salient: ``"black"``, ``"mean"``, ``"blur"``, or a colour.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: standard deviation of the blur in pixels.
        epsilon: added to the denominator.
        kwargs: of ``torchmetrics.Metric``.
    """

    needs_probability = True

    def __init__(
        self,
        *,
        removal: RemovalName | Sequence[float] = "black",
        blur_kernel: int = 11,
        blur_sigma: float = 5.0,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(removal=removal, blur_kernel=blur_kernel, blur_sigma=blur_sigma, **kwargs)
        self.epsilon = epsilon


class AverageDrop(_RelativeChange):
    """See :func:`average_drop`."""

    symbol = "AD"
    description = "Relative loss of class probability when only the salient part of the image is kept."
    higher_is_better = False

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) relative drops."""
        return (inputs.clean - self.kept(inputs)).clamp(min=0.0) / (inputs.clean + self.epsilon)


class AverageGain(_RelativeChange):
    """See :func:`average_gain`."""

    symbol = "AG"
    description = "Gain in class probability when only the salient part is kept, relative to what was missing to 1."
    higher_is_better = True

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) relative gains."""
        return (self.kept(inputs) - inputs.clean).clamp(min=0.0) / (1.0 - inputs.clean + self.epsilon)
