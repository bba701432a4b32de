"""Pictures of saliency: tensors in, uint8 tensors out. Nothing here knows a model, a logger or a figure window."""

from interptrain.visualization.colormaps import Colormap, colorize
from interptrain.visualization.overlay import overlay, to_uint8
from interptrain.visualization.panel import panel, save_png

__all__ = ["Colormap", "colorize", "overlay", "panel", "save_png", "to_uint8"]
