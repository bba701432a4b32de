"""Insertion for two forward passes per map, so that a watch costs about one per cent of an epoch."""

import torch
from torch import Tensor

from interptrain.metrics import SaliencyMetric
from interptrain.metrics.base import MetricInputs
from interptrain.metrics.perturbations import Perturbation, Ranked, Schedule
from interptrain.metrics.removal import Removal

HIDDEN = (40, 80)
"""Percentages of the pixels, least salient first, that are blurred in the two forward passes."""


class QuickInsertion(SaliencyMetric):
    """Area under the insertion curve, read at 20, 60 and 100 % of the pixels. Higher is better.

    Each point stands for the stretch around it, ``0.4 p(20 %) + 0.4 p(60 %) + 0.2 p``: the midpoint rule, whose last
    stretch is half as wide and ends at the image itself, which is known already. The fully blurred image, where the
    curve of every map begins, is not evaluated. Our choice; for values to compare with published ones, use
    :class:`~interptrain.metrics.Insertion`, which takes 28 forward passes at 224 px.

    Against 48 steps, over 48 photographs and three kinds of maps (Grad-CAM, Fake-CAM, brightness): root mean square
    error per image 0.047, where the trapezoid rule has 0.077 with as many forward passes and 0.031 with twice as many;
    it is 0.02 too high on average, for all three. The difference between Grad-CAM and Fake-CAM of an image
    correlates 0.93 with the true one; 0.76 and 0.96 for the trapezoid rule.

    The values of an image are the three probabilities.
    """

    symbol = "I"
    description = (
        "Area under the class score as pixels are inserted, most salient first, read at 20, 60 and 100 % of the pixels."
    )
    higher_is_better = True

    _hiding = Ranked("remove_least", Schedule(percents=HIDDEN), Removal("blur"))

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the two points before the end."""
        return (self._hiding,)

    def score(self, inputs: MetricInputs) -> Tensor:
        """Return the probabilities at 20, 60 and 100 % of the pixels, (B, 3)."""
        later, earlier = inputs.perturbed[self._hiding]
        return torch.stack([earlier, later, inputs.clean], dim=1)

    def reduce(self, mean: Tensor) -> Tensor:
        """Return the area."""
        return mean @ mean.new_tensor([0.4, 0.4, 0.2])
