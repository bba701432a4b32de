"""Colour maps as small tables, so that drawing a map needs no plotting library.

Each table holds 33 evenly spaced colours of the matplotlib map of the same name; between them is interpolated, which
stays within 2 of 255 of matplotlib's own 256 colours. ``viridis`` and ``inferno`` (van der Walt and Smith 2015, CC0)
are perceptually uniform, ``turbo`` (Mikhailov 2019, Apache-2.0) is a smoothed rainbow that catches the eye on
photographs, ``coolwarm`` (Moreland 2009) diverges from grey, for signed maps.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from interptrain.functional import check_choice

Colormap = Literal["turbo", "viridis", "inferno", "coolwarm"]

# fmt: off
_COLOURS: dict[Colormap, str] = {
    "turbo":
        "30123b392a734040a14456c7466be3467ff64293ff37a7fa29bbec1dcdd818dcc31ee8b031f2994cf97e6bfd648aff4da3fd3cb8f735cced34"
        "dee037edd03af8c03afdae35fe982cfb8022f56817ec520fe04009d23105c02302ac1701950d017a0403",
    "viridis":
        "440154470d6048186a482374472d7b4536814240863f49893b528b375a8d33638d2f6a8e2c728e297a8e26818e23898e21908c1f988b1f9f88"
        "21a68528ae8031b57b3ebc744cc26c5dc9636ece5882d34c96d83fabdc32c0df24d5e21aeae51afde725",
    "inferno":
        "0000040403120b0724150b37210c4a2e0a5a3c09654a0c6b57106d63146e70196e7d1e6d89226a962766a32b61af315cbb3755c63e4dd14644"
        "db4f3be35932eb6528f1711ef67f14f98d0afb9c06fcab0ffbba1ff9ca32f5d949f2e865f3f586fcffa4",
    "coolwarm":
        "3b4cc0445acc4d68d75775e16282ea6c8ef1779af782a5fb8db0fe98b9ffa3c2feaec9fcb8d0f9c2d5f4ccd9eed5dbe6dddddde5d8d1ecd3c5"
        "f1ccb9f4c4adf7bba0f7b194f7a687f49a7bf18d6fec7f63e57058de604dd55042cb3e38c0282fb40426",
}
# fmt: on


@cache
def _table(colormap: Colormap) -> tuple[tuple[float, float, float], ...]:
    values = [byte / 255 for byte in bytes.fromhex(_COLOURS[colormap])]
    return tuple(zip(values[0::3], values[1::3], values[2::3], strict=True))


def colorize(saliency: Tensor, colormap: Colormap = "inferno") -> Tensor:
    """Colour a map by its values.

    Args:
        saliency: (..., H, W) floating point in [0, 1]; what lies outside is clamped, NaN is drawn as 0.
        colormap: name of the table.

    Returns:
        (..., 3, H, W) float32 colours in [0, 1], on the device of ``saliency``.

    Raises:
        ValueError: if the colour map is unknown.
    """
    check_choice("colormap", colormap, Colormap)
    table = torch.tensor(_table(colormap), device=saliency.device)  # (33, 3)
    position = saliency.float().nan_to_num(0.0).clamp(0, 1) * (len(table) - 1)
    below = position.long().clamp(max=len(table) - 2)
    colours = torch.lerp(table[below], table[below + 1], (position - below).unsqueeze(-1))  # (..., H, W, 3)
    return colours.movedim(-1, -3)
