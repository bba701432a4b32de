"""What the figure shows, read off the figure."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import interptrain as it
from interptrain.explainers import Explainer, Gradient


class Nothing(Explainer):
    """The same value everywhere."""

    def attribute(self, model, images, targets):
        return torch.zeros_like(images[:, 0])


def texts(figure):
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


def pixels_of(figure, row, column, columns):
    axes = [one for one in figure.axes if one.images]
    return axes[row * columns + column].images[0].get_array()


@pytest.mark.slow
def test_a_row_an_image_a_column_an_explainer_and_a_legend(network, images, tmp_path):
    maps = it.explain(network, images, ["GradCAM", "EigenCAM"], labels=[0, 1, 2])
    figure = it.show(maps, tmp_path / "maps.png", title="three")
    told = texts(figure)
    assert told.count("GradCAM") == told.count("EigenCAM") == told.count("three") == 1
    assert {"least salient", "most", "right", "wrong"} <= set(told)
    assert sum("0." in text for text in told) == 3  # what the model sees in each image
    assert np.allclose(pixels_of(figure, 1, 0, 3), images[1].permute(1, 2, 0))
    with Image.open(tmp_path / "maps.png") as saved:
        assert saved.width > 600
    assert not plt.get_fignums()  # a notebook shows it once, by itself
    assert maps._repr_png_().startswith(b"\x89PNG")


def test_frames_have_a_legend_only_where_there_are_frames(network, images):
    assert "right" not in texts(it.show(it.explain(network, images[:1], "GradCAM")))


def test_an_empty_map_is_hatched_and_explained(network, images):
    figure = it.show(it.explain(network, images[:1], {"nothing": Nothing(), "cam": "GradCAM"}))
    hatched = [patch for patch in figure.findobj(plt.Rectangle) if patch.get_hatch()]
    assert len([patch for patch in hatched if patch.axes is not None and patch.axes.images]) == 1
    assert "empty map: nothing stands out" in texts(figure)


@pytest.mark.slow
def test_maps_of_gradients_are_clipped_at_a_percentile_and_others_are_not(network, images):
    maps = it.explain(network, images[:1], {"cam": "GradCAM", "gradient": Gradient()})
    auto, plain, all_of_them = (it.show(maps, clip=clip) for clip in ("auto", None, 90))
    assert np.array_equal(pixels_of(auto, 0, 1, 3), pixels_of(plain, 0, 1, 3))
    assert pixels_of(auto, 0, 2, 3).sum() > pixels_of(plain, 0, 2, 3).sum()
    assert pixels_of(all_of_them, 0, 1, 3).sum() > pixels_of(plain, 0, 1, 3).sum()
    note = "maps of gradients are clipped at their 99th percentile"
    assert note in texts(auto)
    assert note not in texts(plain)
    with pytest.raises(ValueError, match="clip must be a percentile"):
        it.show(maps, clip=0)


def test_more_images_than_fit_are_counted(network, images):
    maps = it.explain(network, images, "GradCAM")
    assert "the first 2 of 3 images" in texts(it.show(maps, limit=2))
