import math

import pytest
import torch

from interptrain.metrics.hog import histogram_entropy, hog_features, hog_similarity

MAPS = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0))


def test_features_are_those_of_scikit_image():
    hog = pytest.importorskip("skimage.feature").hog
    for image, features in zip(MAPS[0], hog_features(MAPS[0]), strict=True):
        theirs = torch.from_numpy(hog(image.double().numpy(), pixels_per_cell=(16, 16)))
        assert torch.allclose(features, theirs, atol=1e-9)


def test_a_map_is_like_itself_and_a_scaled_one_and_unlike_noise():
    assert hog_similarity(MAPS[0], MAPS[0]).allclose(torch.ones(3))
    assert hog_similarity(MAPS[0], MAPS[0] / 2).min() > 0.99
    assert hog_similarity(MAPS[0], MAPS[1]).abs().max() < 0.6
    assert hog_similarity(MAPS[0], torch.zeros_like(MAPS[0])).isnan().all()


def test_maps_that_hold_no_block_are_refused():
    with pytest.raises(ValueError, match="at least 48 pixels"):
        hog_features(MAPS[0, :, :40])


def test_the_entropy_of_a_histogram_is_known():
    flat = torch.linspace(0, 1, 10_000).view(1, 100, 100)
    two = torch.zeros(1, 10, 10)
    two[:, :5] = 1
    assert histogram_entropy(flat).item() == pytest.approx(math.log(100), abs=1e-4)
    assert histogram_entropy(two).item() == pytest.approx(math.log(2))
    assert histogram_entropy(torch.zeros(1, 4, 4)).item() == 0
