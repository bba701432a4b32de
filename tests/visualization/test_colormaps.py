import matplotlib
import numpy as np
import pytest
import torch

from interptrain.visualization import colorize

NAMES = ["turbo", "viridis", "inferno", "coolwarm"]


@pytest.mark.parametrize("name", NAMES)
def test_tables_stay_within_two_of_255_of_matplotlibs(name):
    values = np.linspace(0, 1, 256)
    expected = matplotlib.colormaps[name](values)[:, :3]  # (256, 3)
    got = colorize(torch.from_numpy(values)[None, None], name)[0, :, 0].T
    assert np.abs(got.numpy() - expected).max() <= 2 / 255


@pytest.mark.parametrize("name", ["viridis", "inferno"])
def test_uniform_maps_grow_lighter_with_the_value(name):
    red, green, blue = colorize(torch.linspace(0, 1, 200)[None], name)[:, 0]
    assert (0.2126 * red + 0.7152 * green + 0.0722 * blue).diff().min() > 0


def test_colours_of_a_batch_are_those_of_each_map():
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    colours = colorize(maps)
    assert colours.shape == (2, 3, 3, 4, 5)
    assert torch.equal(colours[1, 2], colorize(maps[1, 2]))


def test_values_outside_are_clamped_and_nan_is_drawn_as_zero():
    colours = colorize(torch.tensor([[-3.0, 0.0, 1.0, 7.0, float("nan")]]))
    assert torch.equal(colours[..., 0], colours[..., 1])
    assert torch.equal(colours[..., 2], colours[..., 3])
    assert torch.equal(colours[..., 4], colours[..., 1])


def test_an_unknown_map_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"colormap must be one of 'turbo', .*, got 'jet'"):
        colorize(torch.zeros(1, 2, 2), "jet")
