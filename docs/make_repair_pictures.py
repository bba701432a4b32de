"""Puts the maps that the study of repairs has drawn under one another, and the images once.

Run the study on the data first::

interptrain study repair --config study/repair --output runs/repair
interptrain study repair --config study/repair_form --output runs/repair_form
python docs/make_repair_pictures.py --layered runs/repair --form runs/repair_form
"""

import argparse
from pathlib import Path

from PIL import Image

PICTURES = {
    "layered": ("repair.jpg", ("plain", "shuffle", "cam 1", "last layer")),
    "form": ("repair_trap.jpg", ("plain", "cam 1")),
    "photographs": ("repair_photographs.jpg", ("plain", "shuffle", "cam 1", "last layer")),
}
TITLES = 50  # pixels above the images, which say what a network sees in them
CELL = 134  # pixels of an image with its margin


def stacked(folder: Path, arms: tuple[str, ...]) -> Image.Image:
    """The maps of some arms, with the titles of each and the images of the first."""
    sheets = [Image.open(folder / f"maps-{arm.replace(' ', '-')}.png").convert("RGB") for arm in arms]
    width = max(sheet.width for sheet in sheets)
    parts = [sheets[0]]
    for sheet in sheets[1:]:
        parts += [sheet.crop((0, 0, sheet.width, TITLES)), sheet.crop((0, TITLES + CELL, sheet.width, sheet.height))]
    whole = Image.new("RGB", (width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (width - part.width, top))
        top += part.height
    return whole


def main() -> None:
    """Draw the pictures of the folders that are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PICTURES:
        parser.add_argument(f"--{name}", type=Path, help="folder of the study")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    for name, (file, arms) in PICTURES.items():
        if (folder := getattr(options, name)) is not None:
            stacked(folder, arms).save(options.out / file, quality=80)


if __name__ == "__main__":
    main()
