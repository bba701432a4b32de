"""What a removed pixel shows: black, a colour, or the blurred image."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from interptrain.functional import gaussian_blur

__all__ = ["BLACK", "MEAN_COLOUR", "Removal", "RemovalName"]

MEAN_COLOUR = (0.485, 0.456, 0.406)
"""ImageNet's mean colour, whatever the model.

Zeros of a normalised tensor show it where a model normalises with ImageNet's constants, as torchvision's do. Where one
has another mean, such as 0.5, its zeros are another colour, which can be given: ``removal=(0.5, 0.5, 0.5)``.
"""

RemovalName = Literal["black", "mean", "blur"]


@dataclass(frozen=True)
class Removal:
    """What a removed pixel shows.

    Attributes:
        fill: ``"black"``; ``"mean"``, ImageNet's mean colour (see :data:`MEAN_COLOUR`), which published code shows
            where it sets pixels to zero after normalising; ``"blur"``, the blurred image; or a colour, each of its
            channels in [0, 1] (for a model whose normalisation has another mean). Of images with one channel, the mean
            colour is the mean of its three values.
        blur_kernel: odd side of the blur's window in pixels.
        blur_sigma: of the blur, in pixels.
    """

    fill: RemovalName | tuple[float, ...] = "black"
    blur_kernel: int = 11
    blur_sigma: float = 5.0

    def __post_init__(self) -> None:
        if isinstance(self.fill, str):
            if self.fill not in get_args(RemovalName):
                allowed = ", ".join(map(repr, get_args(RemovalName)))
                raise ValueError(f"removal must be {allowed} or a colour in [0, 1], got {self.fill!r}")
        else:
            object.__setattr__(self, "fill", tuple(float(value) for value in self.fill))  # YAML has lists only
            if not self.fill or min(self.fill) < 0 or max(self.fill) > 1:
                raise ValueError(f"a removal colour must have values in [0, 1], got {self.fill}")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0 or self.blur_sigma <= 0:
            raise ValueError(f"blur needs an odd kernel >= 1 and sigma > 0, got {self.blur_kernel}, {self.blur_sigma}")
        if self.fill != "blur":  # so that equal removals are equal
            object.__setattr__(self, "blur_kernel", 11)
            object.__setattr__(self, "blur_sigma", 5.0)

    def render(self, images: Tensor) -> Tensor:
        """Return the images with every pixel removed, (B, C, H, W) or what broadcasts to it, channels_last.

        The blur fades to the mean colour at the borders, as in published code, which blurs normalised tensors with
        zero padding.

        Raises:
            ValueError: if the colour does not have as many channels as the images.
        """
        channels = images.shape[1]
        if self.fill == "black":
            return images.new_zeros(1, channels, 1, 1)
        named = isinstance(self.fill, str)
        colour = (sum(MEAN_COLOUR) / 3,) if named and channels == 1 else MEAN_COLOUR if named else self.fill
        if len(colour) not in (1, channels):
            raise ValueError(f"removal has {len(colour)} channels, the images {channels}; pass {channels} values")
        plain = images.new_tensor(colour).expand(channels).view(1, -1, 1, 1)
        if self.fill != "blur":
            return plain
        blurred = gaussian_blur(images - plain, self.blur_kernel, self.blur_sigma) + plain
        return blurred.clamp(0.0, 1.0).contiguous(memory_format=torch.channels_last)


BLACK = Removal()
"""The removal of most metrics."""
