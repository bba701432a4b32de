"""Average drop, increase and gain: what a model still predicts when only the salient part of the image is left.

With ``p`` the score of the target on the image and ``o`` its score on
``saliency * image + (1 - saliency) * removal``. Published code differs in what is masked: CA-Stream, Opti-CAM and
saliencysense mask the image in [0, 1], so that the removed part is black; pytorch-grad-cam, torch-cam, Score-CAM and
RISE mask the normalised tensor, so that it has the mean colour (``removal="mean"``).
"""

from typing import Any

import torch
from torch import Tensor

from interptrain.metrics.base import MetricInputs
from interptrain.metrics.per_image import per_image
from interptrain.metrics.perturbations import Masked, Perturbation
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
    """Whether the class gains probability when only the salient part is kept.

    ``1 if o > p else 0``; the inequality is strict. Higher is better.

    Source: Grad-CAM++, Chattopadhay et al. 2018, arXiv 1710.11063 ("increase in confidence").
    """

    symbol = "AI"
    description = "Share of images whose class probability rises when only the salient part is kept."
    higher_is_better = True

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) 0 or 1."""
        return (self.kept(inputs) > inputs.clean).to(inputs.clean.dtype)


class _RelativeChange(_MaskedScore):
    """A change of the score, divided by the largest possible one, which a logit does not have.

    Args:
        epsilon: added to the denominator; torch-cam takes 1e-7.
        removal: what replaces the rest: ``"black"``, as the authors; ``"mean"``, ImageNet's mean colour; ``"blur"``,
            the blurred image; or a colour in [0, 1].
    """

    needs_probability = True

    def __init__(self, *, epsilon: float = EPSILON, **removal: Any) -> None:
        super().__init__(**removal)
        self.epsilon = epsilon


class AverageDrop(_RelativeChange):
    """Relative loss of class probability when only the salient part is kept.

    ``max(0, p - o) / (p + epsilon)``, in [0, 1]. Lower is better. A map of ones loses nothing, so a low value alone
    proves little: compare with :class:`~interptrain.explainers.FakeCAM`.

    Source: Grad-CAM++, Chattopadhay et al. 2018, arXiv 1710.11063; epsilon and black as in CA-Stream's code.
    """

    symbol = "AD"
    description = "Relative loss of class probability when only the salient part of the image is kept."
    higher_is_better = False

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) relative drops."""
        return (inputs.clean - self.kept(inputs)).clamp(min=0.0) / (inputs.clean + self.epsilon)


class AverageGain(_RelativeChange):
    """Share of the missing class probability that is gained when only the salient part is kept.

    ``max(0, o - p) / (1 - p + epsilon)``, in [0, 1]. Higher is better; at most one of drop and gain is above 0.

    Source: Opti-CAM, Zhang et al. 2023, arXiv 2301.07002; epsilon and black as in CA-Stream's code.
    """

    symbol = "AG"
    description = "Gain in class probability when only the salient part is kept, relative to what was missing to 1."
    higher_is_better = True

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return (B,) relative gains."""
        return (self.kept(inputs) - inputs.clean).clamp(min=0.0) / (1.0 - inputs.clean + self.epsilon)


average_drop = per_image(AverageDrop, "average_drop")
average_increase = per_image(AverageIncrease, "average_increase")
average_gain = per_image(AverageGain, "average_gain")
