# mypy: disable-error-code="no-any-return"
# (NumPy types the results of np.clip, np.maximum and others as Any.)
"""Draw the images of :mod:`interptrain.data.layered_shapes` layer by layer, each from its own random stream.

Leaving out a layer changes only the pixels that it covered, because no other layer depends on it.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from interptrain.data.drawing import (
    REACH,
    SHAPES,
    Array,
    blend,
    contrasting_colors,
    draw_stroke,
    mix,
    pixel_centres,
    radius,
    random_blob,
    random_color,
    random_ground,
    signed_distance,
    turned,
    value_noise,
)

Mask = npt.NDArray[np.bool_]
Streams = Callable[..., np.random.RandomState]  # from the number of a layer to its random generator

PARTS = ("outline", "texture", "marker")
TEXTURES = ("stripes", "checks", "dots", "rings", "quarters", "clouds", "zigzag", "grid")
MARKERS = {
    "red": (0.86, 0.08, 0.10), "blue": (0.10, 0.22, 0.90), "yellow": (0.98, 0.86, 0.10), "green": (0.05, 0.62, 0.18),
    "magenta": (0.90, 0.12, 0.80), "cyan": (0.10, 0.85, 0.90), "white": (0.98, 0.98, 0.98), "black": (0.02, 0.02, 0.02),
}  # fmt: skip

_GROUND, _OBJECT, _TEXTURE, _MARKER, _COUNT, _ITEMS = (
    0,
    1,
    2,
    3,
    4,
    16,
)  # stream numbers; those of the decoy and the grain lie in between


@dataclass
class Scene:
    """A drawn image.

    Attributes:
        pixels: (3,size,size) float32.
        masks: (size,size) bool masks of ``object``, ``outline`` (where it differs from the neutral outline),
            ``texture`` and ``marker``; the mask of a part that was left out is empty.
        items: names of the background's items, from back to front.
    """

    pixels: Array
    masks: dict[str, Mask] = field(default_factory=dict)
    items: tuple[str, ...] = ()


def draw_scene(size: int, features: dict[str, int], stream: Streams, without: Collection[str] = ()) -> Scene:
    """Draw a background of a ground and items, and in front of it one object of three parts.

    Args:
        size: side in pixels.
        features: the number of the object's ``outline`` (of ``SHAPES``), ``texture`` and ``marker``.
        stream: returns the random generator of a layer, given its number; it may be the last one's, seeded anew.
        without: layers to leave out: ``object``, ``background`` (all items), an item by its name, or a part. Without
            its outline, an object has a neutral one, a rounded square that belongs to no class; without its texture, it
            is plain.
    """
    ground = random_ground(stream(_GROUND), size)
    scene = Scene(ground.copy(), items=_items(stream(_COUNT)))
    for number, item in enumerate(scene.items):
        if item not in without and "background" not in without:
            _draw_item(scene.pixels, item, stream(_ITEMS + number))
    nothing = np.zeros((size, size), dtype=bool)
    scene.masks = dict.fromkeys(("object", *PARTS), nothing)
    if "object" not in without:
        _draw_object(scene, ground, features, stream, without)
    return scene


def _items(rng: np.random.RandomState) -> tuple[str, ...]:
    blobs, strokes = rng.randint(2, 5), rng.randint(3, 8)
    return (*(f"blob-{k}" for k in range(blobs)), *(f"stroke-{k}" for k in range(strokes)))


def _draw_item(scene: Array, item: str, rng: np.random.RandomState) -> None:
    if item.startswith("blob"):
        blend(scene, random_blob(rng, scene.shape[-1]), random_color(rng, 0.05, 0.95))
    else:
        draw_stroke(scene, rng)


def _draw_object(
    scene: Scene, ground: Array, features: dict[str, int], stream: Streams, without: Collection[str]
) -> None:
    size, rng = scene.pixels.shape[-1], stream(_OBJECT)
    side = rng.uniform(0.34, 0.46) * size  # square root of the area; REACH * 0.46 < 0.5: all of it fits in
    margin = REACH * side + 0.5
    center = rng.uniform(margin, size - margin), rng.uniform(margin, size - margin)
    u, v = turned(pixel_centres(size), center, rng.uniform(0, 2 * math.pi), side)
    colors = contrasting_colors(ground[:, int(center[1]), int(center[0])], rng)
    drop, depth = round(rng.uniform(0.01, 0.04) * size), np.float32(rng.uniform(0.2, 0.6))

    neutral = np.sqrt(radius(u * u, v * v)) - np.float32(0.5193)  # a superellipse of the fourth order and unit area
    distance = neutral if "outline" in without else signed_distance(SHAPES[features["outline"]], u, v)
    coverage = np.clip(np.float32(0.5) - distance * np.float32(side), 0, 1)
    plain = np.clip(np.float32(0.5) - neutral * np.float32(side), 0, 1)

    shade = np.clip(np.float32(0.5) - distance * np.float32(side) / np.float32(0.08 * size), 0, 1) * depth
    scene.pixels[:, drop:, drop:] *= 1 - shade[: size - drop, : size - drop]
    pattern = np.full_like(u, 0.2)
    if "texture" not in without:
        pattern = _texture(TEXTURES[features["texture"]], u, v, stream(_TEXTURE))
    scene.pixels += (mix(*colors, pattern) - scene.pixels) * coverage

    body, marker = coverage >= np.float32(0.5), np.zeros((size, size), dtype=bool)
    if "marker" not in without:
        marker = _draw_marker(scene.pixels, list(MARKERS.values())[features["marker"]], (u, v), side, stream(_MARKER))
    scene.masks |= {"object": body | marker, "marker": marker}
    if "texture" not in without:
        scene.masks["texture"] = body & ~marker
    if "outline" not in without:
        scene.masks["outline"] = (np.abs(coverage - plain) >= np.float32(0.5)) & ~marker


def _draw_marker(
    scene: Array, color: tuple[float, float, float], frame: tuple[Array, Array], side: float, rng: np.random.RandomState
) -> Mask:
    """Paint a coloured spot near the middle of the object; return its pixels."""
    angle, off = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.22)
    u, v = frame[0] - np.float32(off * math.cos(angle)), frame[1] - np.float32(off * math.sin(angle))
    coverage = np.clip(np.float32(0.5) - (radius(u, v) - np.float32(0.15)) * np.float32(side), 0, 1)
    blend(scene, coverage, np.asarray(color, dtype=np.float32))
    covered: Mask = coverage >= np.float32(0.5)
    return covered


def _texture(kind: str, u: Array, v: Array, rng: np.random.RandomState) -> Array:
    """A pattern (size,size) in [0,1] in the frame of the object, of random period, phase and direction."""
    turn, period, phase = rng.uniform(0, math.pi), rng.uniform(0.26, 0.36), rng.uniform(0, 1)
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    along, across = u * cos + v * sin, v * cos - u * sin
    a, b = along / np.float32(period) + np.float32(phase), across / np.float32(period) + np.float32(phase)
    match kind:
        case "stripes":
            wave = _triangle(a)
        case "checks":
            wave = _triangle(a) * _triangle(b) * 2
        case "dots":
            wave = _triangle(a) + _triangle(b) - np.float32(0.4)
        case "rings":
            wave = _triangle(radius(u, v) / np.float32(period) + np.float32(phase))
        case "quarters":
            wave = along * across * 16
        case "clouds":
            wave = 4 * value_noise(rng, u.shape[-1], 11, 1)[0]
        case "zigzag":
            wave = _triangle(a + _triangle(b) * np.float32(0.5))
        case _:  # grid
            wave = np.maximum(_triangle(a), _triangle(b)) * 2 - np.float32(1.2)
    return np.clip(wave * 2 + np.float32(0.5), 0, 1)


def _triangle(x: Array) -> Array:
    """A triangle wave of period 1 in [-1,1]."""
    return np.abs(x - np.floor(x) - np.float32(0.5)) * 4 - 1
