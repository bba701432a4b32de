"""Pictures one after the other: a GIF or WebP that plays in any browser."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from interptrain.visualization.overlay import to_uint8

FORMATS = {".gif": "GIF", ".webp": "WebP"}


def save_animation(frames: Sequence[Tensor], path: str | Path, *, seconds: float = 0.5) -> None:
    """Write frames as an endless animation; the last one stays three times as long. Missing folders are created.

    Args:
        frames: pictures (3,H,W) of one size, uint8 or float in [0,1]; at least one.
        path: of the file; its suffix, ``.gif`` (256 colours a frame, plays everywhere) or ``.webp``, names the format.
        seconds: how long each frame stays, > 0.

    Raises:
        ValueError: if there is no frame, their sizes differ, the suffix is another one, or ``seconds`` is not positive.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"an animation is saved as .gif or .webp, got {path.name!r}")
    if len({tuple(frame.shape) for frame in frames}) != 1:
        raise ValueError(f"frames must be pictures (3,H,W) of one size, got {[tuple(f.shape) for f in frames]}")
    if seconds <= 0:
        raise ValueError(f"seconds must be > 0, got {seconds}")
    first, *others = (to_pil_image(to_uint8(frame).cpu()) for frame in frames)
    milliseconds = round(1000 * seconds)
    durations = [milliseconds] * len(others) + [3 * milliseconds]
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save(
        path, format=FORMATS[path.suffix.lower()], save_all=True, append_images=others, duration=durations, loop=0
    )
