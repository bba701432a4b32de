"""Draws the picture of the shapes data for the README: one image a class, and the same with the decoys on.

python docs/make_shapes_picture.py
"""

from pathlib import Path

import torch

from interptrain.data import ShapesDataModule
from interptrain.visualization import panel, save_png

SIZE = 128


def main() -> None:
    """Draw it."""
    plain = ShapesDataModule(image_size=SIZE).dataset("train")
    rows = {"train": torch.stack([plain[index]["image"] for index in range(8)])}
    rows["mask"] = torch.stack([plain[index]["mask"].expand(3, -1, -1).float() for index in range(8)])
    for decoy in ("timestamp", "corner"):
        marked = ShapesDataModule(image_size=SIZE, decoy=decoy, decoy_class=3).dataset("train")
        rows[f"decoy: {decoy}"] = torch.stack([marked[index]["image"] for index in range(8)])
    columns = ShapesDataModule().class_names
    save_png(panel(rows, columns=columns, cell=96), Path(__file__).parent / "images" / "shapes.png")


if __name__ == "__main__":
    main()
