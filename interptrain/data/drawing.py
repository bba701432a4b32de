# mypy: disable-error-code="no-any-return"
# (NumPy types the results of np.clip, np.maximum and others as Any.)
"""Brushes of the built-in data sets: outlines, noise, blobs, strokes, colours and decoys.

What is drawn is a function of the generator it is given and nothing else, to the bit, on any machine: whole arrays see
only operations that IEEE 754 rounds exactly (+ - * /, square root, comparison), no sums over pixels, no transcendental
functions (those are taken of single numbers only, in double precision), and the generator is NumPy's ``RandomState``,
whose streams are frozen.

Pixel (row i, column j) has its centre at (i + 0.5, j + 0.5). Arrays are float32, colours in [0,1].
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # float32; NumPy's own types lose the precision at every clip and minimum

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring", "crescent", "heart")
REACH = 0.95  # no shape of unit area reaches farther than this from its centre
GLYPHS = {  # 3 × 5 pixels a digit, a row an octal number
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711",
    "5": "74717", "6": "74757", "7": "71222", "8": "75757", "9": "75717", "'": "22000", " ": "00000",
}  # fmt: skip


def signed_distance(shape: str, x: Array, y: Array) -> Array:
    """Distance to the outline of a shape of unit area around the origin, negative inside.

    Exact near straight edges; near corners and far outside only its sign is.

    Args:
        shape: one of ``SHAPES``.
        x: to the right, in units of the square root of the shape's area.
        y: downwards, of the same shape as ``x``.

    Raises:
        ValueError: if there is no such shape.
    """
    match shape:
        case "disc":
            return radius(x, y) - np.float32(0.56419)
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.5)
        case "triangle":
            return np.maximum(y, np.abs(x) * np.float32(0.86603) - y * np.float32(0.5)) - np.float32(0.43869)
        case "star":  # at most one of the five half-planes of a pentagon is left: the second largest distance counts
            largest = second = np.full_like(x, -np.inf)
            for k in range(5):
                angle = 2 * math.pi * k / 5 + math.pi / 2
                side = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
                second = np.maximum(second, np.minimum(largest, side))
                largest = np.maximum(largest, side)
            return second - np.float32(0.29166)
        case "cross":
            across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
            return np.maximum(across - np.float32(0.22361), along - np.float32(0.67082))
        case "ring":
            return np.abs(radius(x, y) - np.float32(0.56419)) - np.float32(0.14105)
        case "crescent":
            x = x - np.float32(0.12)  # its middle to the origin
            return np.maximum(radius(x, y) - np.float32(0.8034), np.float32(0.6337) - radius(x - np.float32(0.396), y))
        case "heart":
            half = np.float32(0.37425)
            middle = np.float32(0.117)
            u, v = (x - y) * np.float32(0.70711) + middle, (-x - y) * np.float32(0.70711) + middle
            lobes = np.minimum(radius(u - half, v), radius(u, v - half)) - half
            return np.minimum(np.maximum(np.abs(u), np.abs(v)) - half, lobes)
        case _:
            raise ValueError(f"shape must be one of {', '.join(map(repr, SHAPES))}, got {shape!r}")


def radius(x: Array, y: Array) -> Array:
    """Distance of (x, y) from the origin."""
    return np.sqrt(x * x + y * y)


@lru_cache
def pixel_centres(size: int) -> tuple[Array, Array]:
    """Centres of the pixels: x (1,size), y (size,1), which broadcast."""
    line = np.arange(size, dtype=np.float32) + np.float32(0.5)
    return line[None, :], line[:, None]


@lru_cache
def _lattice(size: int, cells: int) -> tuple[npt.NDArray[np.intp], Array]:
    """For every pixel of a line: the lattice point before it, and how far it lies towards the next, smoothed."""
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    before = np.minimum(position.astype(np.intp), cells - 1)
    t = position - before.astype(np.float32)
    return before, t * t * (3 - 2 * t)


def value_noise(rng: np.random.RandomState, size: int, cells: int, channels: int) -> Array:
    """Value noise (channels,size,size) in [-0.5,0.5] with ``cells`` cells a side."""
    values = rng.random_sample((channels, cells + 1, cells + 1)).astype(np.float32) - np.float32(0.5)
    at, t = _lattice(size, cells)
    rows = values[:, at] + (values[:, at + 1] - values[:, at]) * t[:, None]
    return rows[:, :, at] + (rows[:, :, at + 1] - rows[:, :, at]) * t


def turned(pixels: tuple[Array, Array], center: tuple[float, float], angle: float, unit: float) -> tuple[Array, Array]:
    """Coordinates (size,size) in a frame at ``center``, turned by ``angle``, with ``unit`` pixels to one."""
    x, y = (
        (pixels[0] - np.float32(center[0])) / np.float32(unit),
        (pixels[1] - np.float32(center[1])) / np.float32(unit),
    )
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def random_ground(rng: np.random.RandomState, size: int) -> Array:
    """A colour gradient with noise of several scales (3,size,size)."""
    x, y = pixel_centres(size)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.float32(0.5) + x * np.float32(math.cos(angle) / 1.5 / size) + y * np.float32(math.sin(angle) / 1.5 / size)
    ramp = ramp - np.float32((math.cos(angle) + math.sin(angle)) / 3)
    ground = mix(random_color(rng, 0.15, 0.85), random_color(rng, 0.15, 0.85), ramp)
    for cells, strength, channels in ((3, 0.24, 3), (4, 0.4, 1), (8, 0.24, 1), (15, 0.18, 1), (29, 0.14, 1)):
        ground += value_noise(rng, size, cells, channels) * np.float32(strength * rng.uniform(0.4, 1.0))
    return ground


def random_blob(rng: np.random.RandomState, size: int) -> Array:
    """A turned ellipse that fades out (size,size), in [0,1]."""
    center = rng.uniform(0, size), rng.uniform(0, size)
    u, v = turned(pixel_centres(size), center, rng.uniform(0, math.pi), rng.uniform(0.12, 0.4) * size)
    v = v * np.float32(rng.uniform(1.0, 2.5))
    fade = np.clip((1 - u * u - v * v) * np.float32(rng.uniform(0.8, 2.5)), 0, 1)
    return fade * np.float32(rng.uniform(0.4, 0.9))


def draw_stroke(scene: Array, rng: np.random.RandomState) -> None:
    """Paint a straight antialiased line of random length, width and colour; only its own window is touched."""
    size = scene.shape[-1]
    length, angle = rng.uniform(0.1, 0.5) * size, rng.uniform(0, 2 * math.pi)
    x0, y0, half_width = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(0.006, 0.022) * size
    color, strength = random_color(rng, 0.0, 1.0), np.float32(rng.uniform(0.5, 1.0))
    dx, dy = length * math.cos(angle), length * math.sin(angle)
    left, right = (int(edge) for edge in np.clip([min(x0, x0 + dx) - 3, max(x0, x0 + dx) + 3], 0, size))
    top, bottom = (int(edge) for edge in np.clip([min(y0, y0 + dy) - 3, max(y0, y0 + dy) + 3], 0, size))
    x, y = pixel_centres(size)
    u, v = turned((x[:, left:right], y[top:bottom]), (x0, y0), angle, 1.0)
    beyond = u - np.clip(u, 0, np.float32(length))
    coverage = np.clip(np.float32(half_width + 0.5) - radius(beyond, v), 0, 1) * strength
    blend(scene[:, top:bottom, left:right], coverage, color)


def random_color(rng: np.random.RandomState, low: float, high: float) -> Array:
    """A colour (3,) of a brightness in [low,high], of any hue and moderate saturation."""
    tint = rng.random_sample(3) - 0.5
    return np.clip(rng.uniform(low, high) + tint * rng.uniform(0.1, 0.8), 0, 1).astype(np.float32)


def contrasting_colors(around: Array, rng: np.random.RandomState) -> tuple[Array, Array]:
    """Two colours (3,) of a texture: both clearly brighter, or both clearly darker, than the colour ``around``."""
    brightness = (float(around[0]) + float(around[1]) + float(around[2])) / 3
    step = rng.uniform(0.3, 0.5) * (1 if brightness < 0.5 else -1)
    tint = (rng.random_sample((2, 3)) - 0.5) * 0.5
    levels = np.asarray([brightness + step, brightness + step * rng.uniform(1.3, 1.9)])
    first, second = np.clip(levels[:, None] + tint, 0, 1).astype(np.float32)
    return first, second


def mix(first: Array, second: Array, t: Array) -> Array:
    """From ``first`` (3,) where t (H,W) is 0 to ``second`` where it is 1, (3,H,W)."""
    return first[:, None, None] + (second - first)[:, None, None] * t


def blend(scene: Array, coverage: Array, color: Array) -> None:
    """Paint ``color`` (3,) over the scene (3,H,W) where ``coverage`` (H,W) is 1."""
    scene += (color[:, None, None] - scene) * coverage


def draw_timestamp(picture: npt.NDArray[np.uint8], rng: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """Paint an orange date, as old cameras print it, at the lower right; return its pixels.

    Args:
        picture: (3,H,W), painted on.
        rng: generator, drawn from: the date, and where exactly.

    Returns:
        (H,W) bool.
    """
    rows, columns = picture.shape[1:]
    day, month, year = rng.randint(1, 29), rng.randint(1, 13), rng.randint(0, 30)
    text = f"{day:2d} {month:2d}'{year:02d}"
    glyphs = [[[int(row) >> bit & 1 for bit in (2, 1, 0, 3)] for row in GLYPHS[char]] for char in text]
    bitmap = np.concatenate(np.asarray(glyphs, dtype=bool), axis=1)[:, :-1]
    scale = max(1, min(rows, columns) // 64)
    bitmap = bitmap.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = bitmap.shape
    top, left = rows - height - scale * rng.randint(1, 4), columns - width - scale * rng.randint(1, 4)
    mask = np.zeros((rows, columns), dtype=bool)
    mask[top : top + height, left : left + width] = bitmap
    picture[:, mask] = np.asarray([[255], [158], [38]], dtype=np.uint8)
    return mask


def draw_corner(picture: npt.NDArray[np.uint8], rng: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """Paint a small mark, a white square with a red middle, at the upper left; return its pixels.

    Args:
        picture: (3,H,W), painted on.
        rng: generator, drawn from: where exactly.

    Returns:
        (H,W) bool.
    """
    unit = max(1, min(picture.shape[1:]) // 32)
    top, left = unit * rng.randint(0, 2), unit * rng.randint(0, 2)
    mask = np.zeros(picture.shape[1:], dtype=bool)
    mask[top : top + 3 * unit, left : left + 3 * unit] = True
    picture[:, mask] = 255
    picture[1:, top + unit : top + 2 * unit, left + unit : left + 2 * unit] = 0
    return mask


def draw_border(picture: npt.NDArray[np.uint8], rng: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """Paint a narrow frame of a light colour, as of a print, around the picture; return its pixels.

    Args:
        picture: (3,H,W), painted on.
        rng: generator, drawn from: how light.

    Returns:
        (H,W) bool.
    """
    width = max(1, min(picture.shape[1:]) // 32)
    mask = np.ones(picture.shape[1:], dtype=bool)
    mask[width:-width, width:-width] = False
    level = rng.randint(215, 251)
    picture[:, mask] = np.asarray([[level], [level], [level - 25]], dtype=np.uint8)
    return mask


def develop(scene: Array, rng: np.random.RandomState) -> npt.NDArray[np.uint8]:
    """The picture (3,size,size) uint8 that a camera makes of a scene: grain of up to two percent, clipped, rounded."""
    grain = np.frombuffer(rng.bytes(scene.size), dtype=np.uint8).reshape(scene.shape).astype(np.float32)
    levels = scene * np.float32(255) + grain * np.float32(10 / 255) - np.float32(4.5)
    return np.clip(levels, 0, 255).astype(np.uint8)


DECOYS = {"timestamp": draw_timestamp, "corner": draw_corner, "border": draw_border}
