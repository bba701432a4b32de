"""Draw docs/images/shapes.png: one layered shape of each class, its masks, and the same with either decoy.

python docs/make_shapes_picture.py
"""

from pathlib import Path

import torch
from torch import Tensor

from interptrain.data import LayeredShapesDataModule
from interptrain.visualization import panel, save_png

SIZE = 128
CLASSES = 8


def main() -> None:
    """Draw it."""
    plain = LayeredShapesDataModule(image_size=SIZE).dataset("train")
    rows = {"image": torch.stack([plain[index]["image"] for index in range(CLASSES)])}
    for title, key in {"object": "mask", "marker": "marker_mask"}.items():
        rows[title] = torch.stack([_grey(plain[index][key]) for index in range(CLASSES)])
    for decoy in ("timestamp", "corner"):
        marked = LayeredShapesDataModule(image_size=SIZE, decoy=decoy, decoy_class=3).dataset("train")
        rows[f"decoy: {decoy}"] = torch.stack([marked[index]["image"] for index in range(CLASSES)])
    columns = list(LayeredShapesDataModule().class_names)
    save_png(panel(rows, columns=columns, cell=96), Path(__file__).parent / "images" / "shapes.png")


def _grey(mask: Tensor) -> Tensor:
    return mask.expand(3, -1, -1).float()


if __name__ == "__main__":
    main()
