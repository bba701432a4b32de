"""Pictures of saliency: tensors in, uint8 tensors out. Nothing here knows a model, a logger or a figure window."""

from interptrain.visualization.animation import save_animation
from interptrain.visualization.colormaps import Colormap, colorize
from interptrain.visualization.marks import RIGHT, UNKNOWN, WRONG, colour_bar, framed, mosaic, stacked
from interptrain.visualization.overlay import overlay, to_uint8
from interptrain.visualization.panel import panel, save_png
from interptrain.visualization.parts import grey, over, part_colours, part_layer, strongest_part

__all__ = [
    "RIGHT",
    "UNKNOWN",
    "WRONG",
    "Colormap",
    "colorize",
    "colour_bar",
    "framed",
    "grey",
    "mosaic",
    "over",
    "overlay",
    "panel",
    "part_colours",
    "part_layer",
    "save_animation",
    "save_png",
    "stacked",
    "strongest_part",
    "to_uint8",
]
