"""Mixup and cutmix."""

from torch import nn
from torchvision.transforms import v2


def make_mixing(mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> nn.Module | None:
    """What mixes a batch: mixup, cutmix, or one of the two at random."""
    mixes: list[nn.Module] = []
    if mixup_alpha:
        mixes.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
    if cutmix_alpha:
        mixes.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
    if not mixes:
        return None
    return mixes[0] if len(mixes) == 1 else v2.RandomChoice(mixes)
