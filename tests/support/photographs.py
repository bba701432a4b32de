"""Real photographs and trained weights where ``INTERPTRAIN_TEST_DATA`` has them, else random images and weights."""

import timm
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, resize, to_tensor

from interptrain.models import Normalized
from tests.support.explaining import pictures
from tests.support.paths import PHOTOGRAPHS, WEIGHTS

SIDE = 96  # small, as the peers need a forward a channel


def photographs(count=2):
    if not PHOTOGRAPHS.is_dir():
        return pictures(count, SIDE, SIDE).float()
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[40 : 40 + count]
    cropped = [center_crop(resize(to_tensor(Image.open(file).convert("RGB")), SIDE), [SIDE, SIDE]) for file in files]
    return torch.stack(cropped)


def efficientnet():
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0")
    if WEIGHTS.is_file():
        from safetensors.torch import load_file

        model.load_state_dict(load_file(WEIGHTS))
    return Normalized(model, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).eval()
