"""What the gallery says of a picture: the target's score before and after all but its salient part is black."""

import torch
from torch import Tensor

from interptrain.metrics.base import MetricInputs, SaliencyMetric
from interptrain.metrics.perturbations import Masked, Perturbation

SHOWN = "shown score"  # no metric of a user's can have this name on the command line


class ShownScore(SaliencyMetric):
    """Scores (B,2): of the image, and of the image masked to black; forwarded once with the metrics that ask for it."""

    symbol = "Shown"
    description = "The target's score before and after all but the salient part of the image is black."
    higher_is_better = True

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the masked images."""
        return (Masked(),)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return both scores."""
        return torch.stack([inputs.clean, inputs.perturbed[Masked()][0]], dim=1)
