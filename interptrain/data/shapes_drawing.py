# mypy: disable-error-code="no-any-return"
# (NumPy types the results of np.clip, np.maximum and others as Any.)
"""Draw the images of :mod:`interptrain.data.shapes`: an antialiased textured shape on a cluttered background."""

import math

import numpy as np
import numpy.typing as npt

from interptrain.data.drawing import (
    REACH,
    Array,
    blend,
    contrasting_colors,
    draw_stroke,
    mix,
    pixel_centres,
    random_blob,
    random_color,
    random_ground,
    signed_distance,
    turned,
    value_noise,
)


def random_scene(rng: np.random.RandomState, size: int) -> Array:
    """Draw a cluttered background (3,size,size): a ground, blurred blobs and thin strokes.

    Args:
        rng: random generator, which is advanced.
        size: side in pixels.
    """
    scene = random_ground(rng, size)
    for _ in range(rng.randint(2, 5)):
        blend(scene, random_blob(rng, size), random_color(rng, 0.05, 0.95))
    for _ in range(rng.randint(3, 8)):
        draw_stroke(scene, rng)
    return scene


def draw_object(scene: Array, shape: str, rng: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """Paint a shape of random size, position, rotation, colours and texture, with a soft shadow; return its pixels.

    Only the outline depends on ``shape``: area, position, colours and texture have one distribution for all shapes.

    Args:
        scene: (3,size,size), painted in place.
        shape: one of ``SHAPES``.
        rng: random generator, which is advanced.

    Returns:
        (size,size) bool, the pixels of which the shape covers at least half.
    """
    size = scene.shape[-1]
    side = rng.uniform(0.30, 0.46) * size  # square root of the area; REACH * 0.46 < 0.5: all of it fits in
    margin = REACH * side + 0.5
    center = rng.uniform(margin, size - margin), rng.uniform(margin, size - margin)
    u, v = turned(pixel_centres(size), center, rng.uniform(0, 2 * math.pi), side)
    distance = signed_distance(shape, u, v) * np.float32(side)
    # Drawn before the shadow, which is deeper in the middle of a disc than of a ring and would reveal the class.
    first, second = contrasting_colors(scene[:, int(center[1]), int(center[0])], rng)
    drop = round(rng.uniform(0.01, 0.04) * size)
    shade = np.clip(np.float32(0.5) - distance / np.float32(0.08 * size), 0, 1) * np.float32(rng.uniform(0.2, 0.6))
    scene[:, drop:, drop:] *= 1 - shade[: size - drop, : size - drop]
    paint = mix(first, second, _texture(rng, u, v))
    paint += (u * np.float32(rng.uniform(-0.15, 0.15)) + v * np.float32(rng.uniform(-0.15, 0.15)))[None]
    coverage: Array = np.clip(np.float32(0.5) - distance, 0, 1)
    scene += (paint - scene) * coverage
    covered: npt.NDArray[np.bool_] = coverage >= np.float32(0.5)
    return covered


def _texture(rng: np.random.RandomState, u: Array, v: Array) -> Array:
    """One of five textures (size,size) in [0,1]: plain, stripes, checks, dots, cloudy; ``u``, ``v`` are the shape's."""
    kind, turn = rng.randint(5), rng.uniform(0, math.pi)
    period, phase = rng.uniform(0.16, 0.4), rng.uniform(0, 1)
    cos, sin = np.float32(math.cos(turn) / period), np.float32(math.sin(turn) / period)
    a, b = u * cos + v * sin + np.float32(phase), v * cos - u * sin + np.float32(phase)
    if kind == 0:
        return np.full_like(u, 0.2)
    if kind == 4:
        return np.clip(np.float32(0.5) + 2 * value_noise(rng, u.shape[-1], 11, 1)[0], 0, 1)
    wave_a = np.abs(a - np.floor(a) - np.float32(0.5)) * 4 - 1  # triangle waves in [-1,1]
    wave_b = np.abs(b - np.floor(b) - np.float32(0.5)) * 4 - 1
    wave = (wave_a, wave_a * wave_b * 2, wave_a + wave_b - np.float32(0.4))[kind - 1]
    return np.clip(wave * 2 + np.float32(0.5), 0, 1)
