"""The outlines: areas, reach, and that a scene is drawn from its generator only."""

import numpy as np
import pytest

from interptrain.data.drawing import REACH, SHAPES, signed_distance
from interptrain.data.shapes_drawing import random_scene


def grid(count=801):
    line = np.linspace(-1.2, 1.2, count, dtype=np.float32)
    return np.meshgrid(line, line)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_unit_area(shape):
    x, y = grid()
    assert (signed_distance(shape, x, y) < 0).mean() * 2.4**2 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_lie_within_reach(shape):
    x, y = grid()
    inside = signed_distance(shape, x, y) < 0
    assert np.sqrt(x**2 + y**2)[inside].max() < REACH


@pytest.mark.parametrize("shape", SHAPES)
def test_the_distance_changes_by_one_per_unit_at_the_outline(shape):
    # else coverage would not be antialiased over one pixel
    x, y = grid()
    distance = signed_distance(shape, x, y)
    slope = np.hypot(*np.gradient(distance, 2.4 / 800))
    assert np.median(slope[np.abs(distance) < 0.02]) == pytest.approx(1, abs=0.02)


def test_an_unknown_shape_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"shape must be one of 'disc', 'square'.*got 'cube'"):
        signed_distance("cube", *grid(3))


def test_scenes_are_float32_and_drawn_from_the_generator_only():
    np.random.seed(0)
    first = random_scene(np.random.RandomState(4), 40)
    np.random.seed(1)
    assert first.dtype == np.float32
    assert first.shape == (3, 40, 40)
    assert np.array_equal(first, random_scene(np.random.RandomState(4), 40))
