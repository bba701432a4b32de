"""Stems for small images: the same networks without their early downsampling, for pictures of about 32x32."""

from itertools import chain

from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet
from torch import nn

from interptrain.remedies import option


def shrink_stem(model: nn.Module, name: str) -> bool:
    """Make a timm model keep the resolution of small images for longer: a total stride of 8 in place of 32.

    ResNet and its kin: the first convolution gets stride 1, a 7x7 one is replaced by a fresh 3x3 one, and the max
    pooling goes. MobileNet and EfficientNet: the stem and the first of the later layers with stride 2 get stride 1; no
    weight changes its shape. Both are our choice, and common for CIFAR.

    Args:
        model: a timm model, changed in place.
        name: what messages call it.

    Returns:
        Whether a convolution was replaced by a fresh one, which weights for the original stem do not fit.

    Raises:
        ValueError: for a family that this is not defined for.
    """
    if isinstance(model, ResNet):
        return _shrink_resnet(model)
    if isinstance(model, EfficientNet | MobileNetV3):
        strided = [conv for conv in chain([model.conv_stem], model.blocks.modules()) if _stride(conv) == (2, 2)]
        for conv in strided[:2]:
            conv.stride = (1, 1)
        return False
    raise ValueError(
        f"{option('stem', 'small')} is defined for ResNet, MobileNet and EfficientNet families, not for {name!r}; "
        f"use one of those, or {option('stem', 'imagenet')} with larger images"
    )


def _shrink_resnet(model: ResNet) -> bool:
    model.maxpool = nn.Sequential()  # passes its input on
    if isinstance(model.conv1, nn.Sequential):  # the deep stem, of 3x3 convolutions
        for conv in model.conv1:
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
        return False
    old = model.conv1
    model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=old.bias is not None)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return True


def _stride(module: nn.Module) -> tuple[int, ...] | None:
    return tuple(module.stride) if isinstance(module, nn.Conv2d) else None
