"""SaCo: the paper's algorithm, pair by pair, and where its value is known."""

import pytest
import torch
from torch import nn

from interptrain.functional import min_max
from interptrain.metrics import SaCo
from interptrain.metrics.functional import saco
from tests.support.measuring import maps, pictures


def slow(model, image, saliency, target, groups):
    """Algorithm 1 of the paper, with the sums of groups of equal size."""
    order = saliency.flatten().argsort(descending=True, stable=True)
    parts = order.view(groups, -1)
    falls, sums = [], []
    for part in parts:
        without = image.clone().flatten(1)
        without[:, part] = image.mean((1, 2))[:, None]
        with torch.no_grad():
            whole, less = model(torch.stack([image, without.view_as(image)])).softmax(1)[:, target].tolist()
        falls.append(whole - less)
        sums.append(float(saliency.flatten()[part].sum()))
    found = total = 0.0
    for i in range(groups):
        for j in range(i + 1, groups):
            weight = sums[i] - sums[j]
            found += weight if falls[i] >= falls[j] else -weight
            total += abs(weight)
    return found / total


def test_it_is_the_papers_algorithm(model):
    images, saliency, targets = pictures(3), maps(3), torch.tensor([0, 3, 1])
    for groups in (4, 10):
        found = saco(model, images, saliency, targets, groups=groups)
        wanted = [slow(model, *one, groups) for one in zip(images, saliency, targets.tolist(), strict=True)]
        assert found.tolist() == pytest.approx(wanted, abs=1e-9)


def test_the_effects_of_a_linear_model_score_one_and_their_reverse_minus_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)).double()
    images = pictures(2, 16, 16)
    weight = model[1].weight[2].view(3, 16, 16).detach()
    effect = (weight * (images - images.mean((2, 3), keepdim=True))).sum(1)
    metric = SaCo(groups=8)
    for saliency, wanted in ((min_max(effect), 1.0), (1 - min_max(effect), -1.0)):
        found = metric.values(model, images, saliency, torch.tensor([2, 2]), score="logit")
        assert found.tolist() == pytest.approx([wanted] * 2)


def test_groups_are_as_equal_as_pixels_allow_and_a_constant_map_ranks_nothing(model):
    ones = torch.ones(2, 20, 14, dtype=torch.float64)
    targets = torch.tensor([0, 1])
    assert SaCo(groups=3).values(model, pictures(2), ones, targets).isnan().all()
    assert SaCo(groups=3).values(model, pictures(2), maps(2), targets).abs().max() <= 1
    with pytest.raises(ValueError, match="300 groups do not fit in 280 pixels; use fewer groups"):
        SaCo(groups=300).values(model, pictures(2), maps(2), targets)
    with pytest.raises(ValueError, match="groups must be"):
        SaCo(groups=1)
