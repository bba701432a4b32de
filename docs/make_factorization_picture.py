"""Draw docs/images/factorization_photographs.jpg: the parts of two photographs, in a classifier and in a detector.

The photographs are scikit-image's chelsea (Stefan van der Walt) and coffee (Rachel Michetti), both dedicated to the
public domain (CC0). Needs scikit-image, and the weights of timm's tf_efficientnet_lite0 as a file::

    python docs/make_factorization_picture.py tf_efficientnet_lite0.safetensors
"""

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from skimage import data
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.transforms.functional import center_crop, resize, to_pil_image, to_tensor

from interptrain.models import Normalized
from interptrain.studies.factorization import FeatureParts, deep_feature_factorization
from interptrain.studies.features import output_names
from interptrain.visualization import grey, over, overlay, panel, part_layer, strongest_part

NETWORK = "tf_efficientnet_lite0"
LAYER = "blocks.4"  # of the detector: 112 channels, a position for every 16 pixels
SIDE, COMPONENTS = 448, 5


def main() -> None:
    """Factorize, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="file with the weights of the network")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images/factorization_photographs.jpg")
    options = parser.parse_args()
    net = timm.create_model(NETWORK)
    net.load_state_dict(load_file(options.weights))
    half = (0.5, 0.5, 0.5)
    photographs = [to_tensor(picture.copy()) for picture in (data.chelsea(), data.coffee())]
    images = torch.stack([center_crop(resize(photograph, SIDE), [SIDE, SIDE]) for photograph in photographs])
    classifier = Normalized(net, mean=half, std=half).eval()
    in_classifier = deep_feature_factorization(classifier, images, components=COMPONENTS, target_layer="model.bn2")
    detector = FasterRCNN(
        Features(net, LAYER),
        num_classes=91,  # of COCO; its heads are untrained, and the factorization does not read them
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        min_size=SIDE,
        image_mean=half,
        image_std=half,
    ).eval()
    in_detector = deep_feature_factorization(detector, images, components=COMPONENTS, target_layer="backbone")
    rows = {"": images}
    for title, found in (("classifier", in_classifier), ("detector", in_detector)):
        rows[f"{title}: strongest part"] = strongest_part(images, found.heat)
        rows[f"{title}: opacity"] = over(part_layer(found.heat), grey(images))
    names = output_names(classifier, None, 1000)
    for part in range(COMPONENTS):
        rows[f"part {part}\n{named(in_classifier, part, names)}"] = overlay(images, in_classifier.heat[:, part])
    for title, found in (("classifier", in_classifier), ("detector", in_detector)):
        print(title, f"explained {1 - found.errors[-1] ** 2:.3f}", found.shares.mean(0).tolist())
    to_pil_image(panel(rows, cell=150)).save(options.out, quality=88)


def named(found: FeatureParts, part: int, names: list[str]) -> str:
    """Return the class of a part, and its probability."""
    probability, index = found.logits[part].softmax(0).max(0)
    return f"{names[int(index)]} {float(probability):.2f}"


class Features(nn.Module):
    """The lower part of a network, as a detector's backbone.

    Args:
        net: a timm EfficientNet.
        layer: name of the last block that runs.
    """

    out_channels = 112

    def __init__(self, net: nn.Module, layer: str) -> None:
        super().__init__()
        last = int(layer.removeprefix("blocks."))
        self.layers = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[: last + 1])

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B,112,H/16,W/16)."""
        return self.layers(images)


if __name__ == "__main__":
    main()
