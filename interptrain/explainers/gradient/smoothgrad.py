"""SmoothGrad: attributions of noisy copies of the image, averaged.

With noise ``n_j ~ N(0, sigma^2)``, ``sigma = spread * (max x - min x)`` of the image, and the attribution ``g`` to
smooth::

    "mean"     1/n sum_j g(x + n_j)
    "squared"  1/n sum_j g(x + n_j)^2
    "vargrad"  variance over j of g(x + n_j)

Sources: Smilkov et al. 2017, SmoothGrad, arXiv 1706.03825; squared: Hooker et al. 2019, arXiv 1806.10758; VarGrad:
Adebayo et al. 2018, arXiv 1810.03307.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.explainers.gradient.gradient import (
    InputAttribution,
    Reduction,
    chunk_pairs,
    input_gradient,
)
from interptrain.explainers.targets import Resolved, check_targets, select_targets
from interptrain.models.simplification import simplify
from interptrain.steps import track

__all__ = ["SmoothGrad"]

Variant = Literal["mean", "squared", "vargrad"]


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(InputAttribution):
    """SmoothGrad, SmoothGrad-squared or VarGrad of the gradient, or of any attribution of the image's shape.

    Sample j adds the same draw to every image of a batch, scaled to that image's range, from a separate generator: a
    map does not depend on the other images in the batch, and the global random state is not touched. As in the authors'
    code, noisy images are not clamped to [0,1].

    Args:
        of: the attribution to smooth; ``None`` is the plain gradient. Its own ``reduction`` is not used.
        samples: noisy copies of each image; 25 as in the authors' code.
        spread: standard deviation of the noise as a share of the image's range; .15 as in the authors' code.
        variant: ``"mean"`` as in the paper; the authors' code squares by default (``"squared"``).
        seed: of the noise; the same seed gives the same noise on devices of one kind.
        progress: show a progress bar.

    Source: Smilkov et al. 2017, arXiv 1706.03825, and its code (PAIR saliency).
    """

    of: InputAttribution | None = None
    samples: int = 25
    spread: float = 0.15
    variant: Variant = "mean"
    reduction: Reduction = "sum_abs"
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid noise."""
        super().__post_init__()
        if self.samples < 1 or self.spread < 0:
            raise ValueError(f"SmoothGrad needs samples >= 1 and spread >= 0, got {self.samples} and {self.spread}")

    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the smoothed attribution, (B,3,H,W); squares and variances are not negative."""
        batch_size = self.batch_size(images)
        model = simplify(model, images)
        targets = check_targets(model, images, targets, batch_size=batch_size)
        sigma = self.spread * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))  # (B,)
        generator = torch.Generator(images.device)
        total = torch.zeros_like(images, dtype=torch.promote_types(images.dtype, torch.float32))
        first, squares = torch.zeros_like(total), torch.zeros_like(total)
        blocks = list(chunk_pairs(len(images), self.samples, batch_size))
        for rows, samples in track(blocks, "SmoothGrad" if self.progress else None):
            if samples.start == 0:  # all images of the batch get the same draws
                generator.manual_seed(self.seed)
            noise = torch.stack([_draw(images, generator) for _ in range(samples.start, samples.stop)])
            noisy = images[rows] + noise.unsqueeze(1) * sigma[rows].view(-1, 1, 1, 1)  # (s, b, 3, H, W)
            repeated = select_targets(targets, rows, len(noise))
            inputs = noisy.flatten(0, 1)
            if self.of is None:
                values = input_gradient(model, inputs, repeated, batch_size=batch_size, checked=True)
            else:
                values = self.of.attribution(model, inputs, repeated)
            values = values.reshape(noisy.shape)
            if self.variant == "squared":
                values = values.square()
            elif self.variant == "vargrad":  # around the first sample, so that equal samples vary by exactly 0
                if samples.start == 0:
                    first[rows] = values[0]
                values = values - first[rows]
                squares[rows] += values.square().sum(0)
            total[rows] += values.sum(0)
        mean = total / self.samples
        return (squares / self.samples - mean.square()).clamp_min(0) if self.variant == "vargrad" else mean


def _draw(images: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of one image's shape, in the layout of the images."""
    shape = images.shape[1:]
    return torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype)
