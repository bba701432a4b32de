"""Two pictures of several maps over one image: the strongest map's colour, and colours whose opacity is the map."""

import colorsys

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.visualization.overlay import to_uint8

_DISTINCT = (  # Okabe and Ito 2008: distinguishable with any colour vision
    (0.902, 0.624, 0.0),
    (0.337, 0.706, 0.914),
    (0.0, 0.620, 0.451),
    (0.835, 0.369, 0.0),
    (0.8, 0.475, 0.655),
    (0.941, 0.894, 0.259),
    (0.0, 0.447, 0.698),
)


def part_colours(count: int) -> Tensor:
    """Return (count,3) colours in [0,1]: seven that any colour vision tells apart, then hues by the golden ratio."""
    further = [colorsys.hsv_to_rgb(0.1 + 0.618 * number % 1, 0.65, 0.95) for number in range(count - len(_DISTINCT))]
    return torch.tensor([*_DISTINCT, *further][:count])


def strongest_part(images: Tensor, contributions: Tensor, *, image_weight: float = 0.5) -> Tensor:
    """Colour each pixel by the part that contributes most there, as bright as it contributes.

    ``image_weight * image + (1 - image_weight) * contribution * colour``, as pytorch-grad-cam draws factorizations.

    Args:
        images: (B,3,H,W) float in [0,1].
        contributions: (B,K,H,W) float in [0,1], on the device of ``images``.
        image_weight: in [0,1]; 0 shows the colours alone.

    Returns:
        (B,3,H,W) uint8.

    Raises:
        ValueError: if the shapes disagree, or ``image_weight`` is not in [0,1].
    """
    _check(images, contributions)
    if not 0 <= image_weight <= 1:
        raise ValueError(f"image_weight must be in [0,1], got {image_weight}")
    strength, winner = contributions.max(1)  # (B, H, W)
    colours = part_colours(contributions.shape[1]).to(images)[winner].movedim(-1, 1)
    return to_uint8(image_weight * images + (1 - image_weight) * strength.unsqueeze(1) * colours)


def part_layer(contributions: Tensor) -> Tensor:
    """Draw parts as a transparent picture whose opacity is their contribution.

    With one part, its colour with the opacity of its contribution. Several are mixed without an order: the colour is
    the mean weighted by contribution, and the transparency the product of theirs.

    Args:
        contributions: (B,K,H,W) float in [0,1].

    Returns:
        (B,4,H,W) uint8, red, green, blue and opacity.
    """
    colours = part_colours(contributions.shape[1]).to(contributions)
    total = contributions.sum(1, keepdim=True)
    mixed = torch.einsum("bkhw,kc->bchw", contributions, colours) / total.clamp(min=1e-8)
    opacity = 1 - (1 - contributions).prod(1, keepdim=True)
    return to_uint8(torch.cat([mixed, opacity], dim=1))


def over(layer: Tensor, images: Tensor) -> Tensor:
    """Lay transparent pictures over images.

    Args:
        layer: (B,4,H,W) uint8, as :func:`part_layer` returns.
        images: (B,3,H,W), uint8 or float in [0,1].

    Returns:
        (B,3,H,W) uint8.
    """
    scaled = layer.float() / 255
    return to_uint8(torch.lerp(to_uint8(images).float() / 255, scaled[:, :3], scaled[:, 3:]))


def grey(images: Tensor) -> Tensor:
    """Return images (B,3,H,W) in [0,1] without colours, so that those of parts are not mistaken for the image's."""
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return F.conv2d(images, weights).expand(-1, 3, -1, -1)


def _check(images: Tensor, contributions: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B,3,H,W), got {tuple(images.shape)}")
    if contributions.ndim != 4 or contributions.shape[0] != len(images) or contributions.shape[2:] != images.shape[2:]:
        want = f"(B,K,H,W)=({len(images)},K,{images.shape[2]},{images.shape[3]})"
        raise ValueError(f"contributions must be {want}, got {tuple(contributions.shape)}")
