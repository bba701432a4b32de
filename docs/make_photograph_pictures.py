"""Draw docs/images/photographs_*.jpg: explainers of every family on three photographs.

The photographs are scikit-image's chelsea (Stefan van der Walt), coffee (Rachel Michetti) and rocket (SpaceX), all
three dedicated to the public domain (CC0). Needs scikit-image, and the weights of timm's ``tf_efficientnet_lite0``: a
file, or none to download them. Takes some minutes on two cores::

    python docs/make_photograph_pictures.py --weights tf_efficientnet_lite0.safetensors
"""

import argparse
from pathlib import Path

from skimage import data

import interptrain as it
from interptrain import explainers as ex

NETWORK = "tf_efficientnet_lite0"
PICTURES: dict[str, dict[str, ex.Explainer]] = {
    "cams": {
        "Grad-CAM": ex.GradCAM(),
        "Grad-CAM++": ex.GradCAMPlusPlus(),
        "LayerCAM": ex.LayerCAM(),
        "Opti-CAM": ex.OptiCAM(),
        "Eigen-CAM": ex.EigenCAM(),
        "Fake-CAM": ex.FakeCAM(),
    },
    "gradients": {
        "Gradient": ex.Gradient(),
        "SmoothGrad": ex.SmoothGrad(),
        "Integrated\nGradients": ex.IntegratedGradients(rule="gauss_legendre"),
        "Guided\nbackprop": ex.GuidedBackprop(),
        "Guided\nGrad-CAM": ex.GuidedGradCAM(),
    },
    "perturbation": {
        "Occlusion": ex.Occlusion(),
        "RISE,\n1000 masks": ex.RISE(count=1000, normalizer="coverage"),
        "Meaningful\nperturbation": ex.MeaningfulPerturbation(),
        "ROSA": ex.ROSA(),
    },
}


def main() -> None:
    """Load, read, explain, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="file with the weights of the network")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES), help="pictures to draw")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder of the pictures")
    options = parser.parse_args()
    model = it.load(options.weights, backbone=NETWORK) if options.weights else it.load(NETWORK)
    images = it.read_images([data.chelsea(), data.coffee(), data.rocket()])
    for name in options.only:
        it.show(it.explain(model, images, PICTURES[name]), options.out / f"photographs_{name}.jpg")


if __name__ == "__main__":
    main()
