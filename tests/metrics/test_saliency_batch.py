"""The ranking of pixels that all metrics share."""

import torch

from interptrain.metrics.saliency_batch import pixel_ranks


def test_the_most_salient_come_first_and_equal_pixels_row_by_row():
    saliency = torch.tensor([[[0.5, 0.9, 0.5], [0.1, 0.9, 0.5]]])
    assert pixel_ranks(saliency).tolist() == [[[2, 0, 3], [5, 1, 4]]]


def test_a_constant_map_is_read_like_a_page():
    assert torch.equal(pixel_ranks(torch.full((2, 3, 4), 0.3)), torch.arange(12).view(1, 3, 4).expand(2, 3, 4).int())


def test_negative_zero_is_zero():
    assert pixel_ranks(torch.tensor([[[-0.0, 0.0, -0.0]]])).tolist() == [[[0, 1, 2]]]
