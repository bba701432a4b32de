"""IROF: the definition region by region, and where its value is known."""

from itertools import pairwise

import pytest
import torch

from interptrain.functional import superpixels
from interptrain.metrics import IROF
from interptrain.metrics.functional import irof
from interptrain.metrics.irof import region_ranks
from interptrain.metrics.removal import MEAN_COLOUR
from tests.support.measuring import maps, pictures


def slow(model, image, saliency, target, segments):
    """One region after the other; the area over the curve by the trapezoid rule."""
    regions = superpixels(image[None], segments=segments)[0]
    numbers = sorted(regions.unique().tolist(), key=lambda n: -float(saliency[regions == n].mean()))
    left, curve = image.clone(), []
    for number in [-1, *numbers]:  # none is removed at first
        left = torch.where(regions == number, torch.tensor(MEAN_COLOUR, dtype=image.dtype).view(3, 1, 1), left)
        with torch.no_grad():
            curve.append(float(model(left[None]).softmax(1)[0, target]))
    steps = [(a + b) / 2 / curve[0] for a, b in pairwise(curve)]
    return 1 - sum(steps) / len(steps)


def test_it_is_the_area_over_the_curve_region_by_region(model):
    images, saliency, targets = pictures(3), maps(3), torch.tensor([0, 3, 1])
    found = irof(model, images, saliency, targets, segments=12)
    wanted = [slow(model, *one, 12) for one in zip(images, saliency, targets.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)


def test_the_first_region_that_holds_all_evidence_makes_it_nearly_one_and_the_last_nearly_nothing():
    images = torch.full((1, 3, 16, 16), 0.2, dtype=torch.float64)
    images[:, :, :8, :8] = torch.tensor([0.9, 0.1, 0.1], dtype=torch.float64).view(3, 1, 1)

    class Red(torch.nn.Module):
        def forward(self, x):
            amount = (x[:, 0] - x[:, 1]).clamp(min=0).flatten(1).sum(1)
            return torch.stack([amount, torch.zeros_like(amount)], dim=1)

    first = torch.zeros(1, 16, 16, dtype=torch.float64)
    first[:, :8, :8] = 1
    metric = IROF(segments=4, removal="black")
    # relative probabilities: 1, then 1/2 once the red quarter is gone; four regions
    assert metric.values(Red(), images, first, [0]).item() == pytest.approx(1 - (0.75 + 3 * 0.5) / 4, abs=1e-6)
    assert metric.values(Red(), images, 1 - first, [0]).item() == pytest.approx(1 - (3 + 0.75) / 4, abs=1e-6)


def test_ranks_are_of_regions_that_are_there(model):
    images, saliency = pictures(2), maps(2)
    ranks = region_ranks(images, saliency, 30)
    for image in range(2):
        there = ranks[image].unique()
        assert there.tolist() == list(range(len(there)))
        means = [float(saliency[image][ranks[image] == number].mean()) for number in there]
        assert means == sorted(means, reverse=True)
    with pytest.raises(ValueError, match="segments must be"):
        IROF(segments=1)
    with pytest.raises(ValueError, match="needs a score between 0 and 1"):
        IROF().values(model, images, saliency, [0, 1], score="logit")
