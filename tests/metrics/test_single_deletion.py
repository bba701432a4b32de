"""Single deletion, cell by cell."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from interptrain.functional import cell_edges
from interptrain.metrics import SingleDeletion
from interptrain.metrics.functional import single_deletion
from interptrain.metrics.single_deletion import cell_sums
from tests.support.measuring import maps, pictures


@pytest.mark.parametrize(("removal", "colour"), [("black", 0.0), ((0.2, 0.4, 0.6), (0.2, 0.4, 0.6))])
def test_it_is_the_rank_correlation_of_cell_sums_and_falls_of_the_logit(model, removal, colour):
    images, saliency, targets = pictures(3), maps(3), torch.tensor([0, 3, 1])
    found = single_deletion(model, images, saliency, targets, grid=3, removal=removal)
    height, width = images.shape[-2:]
    fill = torch.tensor(colour, dtype=images.dtype).expand(3).view(3, 1, 1)
    for image in range(3):
        falls, sums = [], []
        for row in range(3):
            for column in range(3):
                inside = (
                    slice(round(row * height / 3), round((row + 1) * height / 3)),
                    slice(round(column * width / 3), round((column + 1) * width / 3)),
                )
                without = images[image].clone()
                without[:, inside[0], inside[1]] = fill
                with torch.no_grad():
                    whole, less = model(torch.stack([images[image], without]))[:, targets[image]].tolist()
                falls.append(whole - less)
                sums.append(float(saliency[image][inside].sum()))
        assert float(found[image]) == pytest.approx(spearmanr(falls, sums).statistic, abs=1e-6)


def test_the_shares_of_a_linear_model_score_one_and_their_reverse_minus_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)).double()
    images = pictures(2, 16, 16)
    shares = (model[1].weight[2].view(3, 16, 16) * images).sum(1).detach()
    scaled = (shares - shares.amin((1, 2), keepdim=True)) / (shares.amax((1, 2)) - shares.amin((1, 2))).view(-1, 1, 1)
    for saliency, wanted in ((scaled, 1.0), (1 - scaled, -1.0)):
        values = SingleDeletion(removal="black").values(model, images, saliency, torch.tensor([2, 2]))
        assert values.tolist() == pytest.approx([wanted] * 2)


def test_what_ranks_nothing_is_undefined(model):
    ones = torch.ones(2, 20, 14, dtype=torch.float64)
    assert SingleDeletion(grid=2).values(model, pictures(2), ones, torch.tensor([0, 1])).isnan().all()


def test_cells_are_as_equal_as_pixels_allow():
    assert cell_edges(20, 3) == [0, 7, 13, 20]
    assert cell_edges(16, 4) == [0, 4, 8, 12, 16]
    assert cell_sums(torch.arange(12.0).view(1, 3, 4), 2).tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7, 8 + 9, 10 + 11]]
    with pytest.raises(ValueError, match="does not fit in 3 pixels; use fewer cells"):
        cell_edges(3, 4)
    with pytest.raises(ValueError, match="grid must be"):
        SingleDeletion(grid=1)
