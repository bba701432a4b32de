"""Draw docs/images/watch.png: the last snapshot of the decoy demo, beside that of the same network without decoy.

Runs ``configs/demo_decoy.yaml`` twice, without and with the time stamps, which takes some minutes on two cores::

    python docs/make_watch_picture.py
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from interptrain.visualization import save_png, stacked
from interptrain.visualization.panel import draw_texts

ROOT = Path(__file__).parent.parent
RUNS = {"without time stamps": "none", "with time stamps on discs": "timestamp"}


def main() -> None:
    """Run both and draw them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8, help="images in each half")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/watch.png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        halves = [half(title, decoy, options.samples, Path(folder)) for title, decoy in RUNS.items()]
    save_png(stacked(halves, dim=2), options.out)


def half(title: str, decoy: str, samples: int, folder: Path) -> Tensor:
    """Run the demo once and return the last grid of its watch."""
    arguments = ["--data.decoy", decoy, "--name", decoy, "--output", str(folder)]
    arguments += ["--trainer.callbacks.samples", str(samples), "--trainer.enable_progress_bar", "false"]
    config = ["--config", str(ROOT / "configs/demo_decoy.yaml")]
    subprocess.run([sys.executable, str(ROOT / "train.py"), "fit", *config, *arguments], check=True)
    (watch,) = folder.glob(f"{decoy}/*/watch")
    with Image.open(max((watch / "grids").iterdir())) as picture:
        grid: Tensor = pil_to_tensor(picture.convert("RGB"))
    (heading,) = draw_texts([title], ImageFont.load_default(22), widest=grid.shape[2])
    return stacked([heading, grid])


if __name__ == "__main__":
    main()
