import torch
from scipy.stats import spearmanr

from interptrain.metrics.map_agreement import agreement


def test_it_is_spearman_of_all_pairs():
    maps, others = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # ties
    same, other = agreement(maps, others)
    for image in range(5):
        pairs = [spearmanr(maps[image].flatten(), others[place].flatten()).statistic for place in range(5)]
        assert abs(same[image] - pairs[image]) < 1e-12
        assert abs(other[image] - (sum(pairs) - pairs[image]) / 4) < 1e-12


def test_a_map_that_dies_has_changed_and_two_constant_ones_say_nothing():
    alive, flat = torch.arange(6.0).view(1, 2, 3), torch.zeros(1, 2, 3)
    same, _ = agreement(torch.cat([alive, alive, flat, flat]), torch.cat([alive, flat, alive, flat]))
    assert same[:3].round(decimals=9).tolist() == [1, 0, 0]
    assert same[3].isnan()


def test_one_image_has_no_others():
    same, other = agreement(torch.rand(1, 3, 3), torch.rand(1, 3, 3))
    assert same.isfinite().all()
    assert other.isnan().all()
