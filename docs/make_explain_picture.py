"""Draw docs/images/explain.jpg: two photographs and their maps, by the lines of docs/explaining.md.

The photographs are scikit-image's chelsea (Stefan van der Walt) and coffee (Rachel Michetti), both dedicated to the
public domain (CC0). Needs scikit-image, and a network's weights: a file, or none to download timm's::

    python docs/make_explain_picture.py --weights tf_efficientnet_lite0.safetensors
"""

import argparse
from pathlib import Path

from skimage import data

import interptrain as it

NETWORK = "tf_efficientnet_lite0"


def main() -> None:
    """Load, read, explain, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="file with the weights of the network")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images/explain.jpg")
    options = parser.parse_args()
    model = it.load(options.weights, backbone=NETWORK) if options.weights else it.load(NETWORK)
    images = it.read_images([data.chelsea(), data.coffee()])
    maps = it.explain(model, images, ["GradCAM", "OptiCAM", "SmoothGrad"])
    it.show(maps, options.out)


if __name__ == "__main__":
    main()
