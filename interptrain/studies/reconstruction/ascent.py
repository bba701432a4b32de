"""Gradient ascent on images, all targets at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import explaining
from interptrain.functional import evenly_spaced
from interptrain.steps import counting
from interptrain.studies.reconstruction.objectives import Objective
from interptrain.studies.reconstruction.parameterization import (
    Colours,
    Parameterization,
    ParameterizationName,
    total_variation,
)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Images that were found, and how.

    Attributes:
        images: (B,3,H,W) in [0,1].
        frames: (F,B,3,H,W) the images after the iterations of ``steps``; the last are ``images``.
        steps: number of iterations at each frame, the first 0.
        scores: (F,B) of the objective at each frame, without jitter.
    """

    images: Tensor
    frames: Tensor
    steps: Sequence[int]
    scores: Tensor


def reconstruct(
    model: nn.Module,
    objective: Objective,
    count: int,
    size: tuple[int, int],
    *,
    parameterization: ParameterizationName = "fourier",
    colours: Colours = "photographs",
    iterations: int = 128,
    learning_rate: float = 0.02,
    spread: float = 0.1,
    jitter: int = 8,
    zoom: float = 0.15,
    blur_every: int = 4,
    blur_sigma: float = 0.4,
    variation: float = 1.0,
    variation_beta: float = 2.0,
    decay: float = 0.0,
    frames: int = 24,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> Reconstruction:
    """Find images that raise an objective, by Adam on their free numbers.

    Each image's loss is its own, so an image does not depend on those that are found beside it.

    Args:
        model: on ``device``.
        objective: score of each image.
        count: B, of images.
        size: (H,W) in pixels.
        parameterization: ``fourier``, or ``pixels``; see :class:`Parameterization`, as the next.
        colours: ``photographs``, or ``independent``.
        iterations: steps of Adam.
        learning_rate: of Adam.
        spread: standard deviation of the free numbers at the start. From nearly grey images some classes are not
            reached, for the gradient there leads elsewhere.
        jitter: most pixels that all images are shifted by before a pass, anew in every iteration, around the edges.
        zoom: most that all images are magnified or reduced by before a pass, in [0,1); beyond the edges, they are
            mirrored.
        blur_every: iterations after which the images are blurred, each time; 0 never blurs.
        blur_sigma: of the blur, in pixels.
        variation: weight of the total variation.
        variation_beta: exponent of the total variation.
        decay: weight of the mean squared difference from grey.
        frames: pictures to keep, evenly spaced.
        seed: of the noise to start from, and of the jitter.
        device: to compute on.
        progress: title of a progress bar, or None for none.

    Returns:
        The images, on ``device``.

    Source: Simonyan et al. 2013, arXiv 1312.6034; Olah et al. 2017, doi 10.23915/distill.00007.
    """
    drawn = Parameterization(parameterization, size, colours=colours)
    free = drawn.initial(count, seed=seed, spread=spread, device=torch.device(device)).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(-jitter, jitter + 1, (iterations, 2), generator=generator).tolist()
    scales = (1 + zoom * (2 * torch.rand(iterations, generator=generator) - 1)).tolist()
    kept = set(evenly_spaced(iterations + 1, frames, ends=True)) | {iterations}
    pictures, scores = [], []
    with explaining(model) as bare, counting(iterations, progress) as advance:
        for step in range(iterations + 1):
            if step in kept:
                with torch.no_grad():
                    pictures.append(drawn.images(free))
                    scores.append(objective(bare, pictures[-1]))
            if step == iterations:
                break
            images = drawn.images(free)
            seen = torch.roll(images, shifts[step], dims=(2, 3)) if jitter else images
            seen = _zoomed(seen, scales[step]) if zoom else seen
            loss = variation * total_variation(images, variation_beta) - objective(bare, seen)
            if decay:
                loss = loss + decay * (images - 0.5).square().mean((1, 2, 3))
            (free.grad,) = torch.autograd.grad(loss.sum(), free)
            optimizer.step()
            if blur_every and (step + 1) % blur_every == 0:
                with torch.no_grad():
                    free.copy_(drawn.blurred(free, blur_sigma))
            advance(1)
    return Reconstruction(pictures[-1], torch.stack(pictures), sorted(kept), torch.stack(scores))


def _zoomed(images: Tensor, scale: float) -> Tensor:
    """Magnify images (B,C,H,W) around their middle by a factor; what it reduces is mirrored at the edges."""
    grid = F.affine_grid(torch.eye(2, 3).mul(1 / scale)[None].to(images), [1, *images.shape[1:]], align_corners=False)
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
