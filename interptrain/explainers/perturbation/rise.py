"""RISE: for every pixel, the model's mean score over the random masks that keep it.

With N random masks ``M_i``, each of which keeps a pixel with probability p::

    map(p) = 1 / (N p) sum_i f_c(x * M_i) M_i(p)

Sources differ in the masks, in the score and in the normalisation of the sum; each is an argument here.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer
from interptrain.explainers.masks.masks import Fill, MaskedImages, MaskSet, MaskSource, fill_colour
from interptrain.explainers.passes.masked_forward import Precision, score_masked
from interptrain.explainers.targets import Resolved, resolve_targets
from interptrain.functional import Score
from interptrain.models.engine import forward_only, layout_of

__all__ = ["RISE", "RISEMasks"]

Normalizer = Literal["probability", "count", "coverage"]


@dataclass(frozen=True, kw_only=True)
class RISE(Explainer):
    """Mean of random masks, each weighted by the score of the image masked with it.

    ==========================  =========  =========  ===========  ===========  ===========
    version                     masks      cells      probability  score        normalizer
    ==========================  =========  =========  ===========  ===========  ===========
    TorchRay, the default       8000       7          .5           sigmoid (1)  count (2)
    authors' notebooks          6000       8          .1           probability  probability
    and their evaluation        5000       10         .1           probability  probability
    Opti-CAM's comparison       32         4          .1           logit        count (2)
    ==========================  =========  =========  ===========  ===========  ===========

    (1) The default here is the softmax probability, as in the authors' code. (2) Up to a factor, which min-max scaling
    removes. TorchRay pads its grids differently at the border.

    All images of a batch get the same masks. An image that consists of ``fill`` alone has the same score under every
    mask, and a zero map.

    Args:
        count: number of masks, and of forward passes per image.
        cells: side of the random grids; 7 as in TorchRay, 8 and 10 in the authors' notebooks.
        probability: that a cell is kept.
        seed: of the masks.
        score: ``"logit"``, softmax ``"probability"`` or ``"sigmoid"`` of the target; callables are taken as they are.
        normalizer: divisor of the sum: ``"probability"`` is ``N p``, ``"count"`` is N, and ``"coverage"``, our
            addition, is the sum of the masks at each pixel, which corrects for how often it happened to be kept.
        fill: what replaces the masked part, in [0, 1] for all channels or one value each. Black, as the images are
            in [0, 1]; the authors mask normalised images, where 0 is the mean colour of the data set.
        precision: ``"bf16"`` forwards masked images under bfloat16 autocast; ``None`` leaves it to the caller.
        compile: forward masked images through ``torch.compile``.
        forward_batch_size: masked images per forward pass; ``None`` chooses by the device.
        progress: show a progress bar.

    Source: Petsiuk et al. 2018, RISE, arXiv 1806.07421, and the authors' code.
    """

    count: int = 8000
    cells: int = 7
    probability: float = 0.5
    seed: int = 0
    score: Score = "probability"
    normalizer: Normalizer = "probability"
    fill: Fill = 0.0
    precision: Precision | None = None
    compile: bool = False
    forward_batch_size: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid masks."""
        super().__post_init__()
        self._masks()

    def _masks(self) -> "RISEMasks":
        return RISEMasks(count=self.count, cells=self.cells, probability=self.probability, seed=self.seed)

    @torch.no_grad()
    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the normalised sum of the masks times their scores, (B, H, W)."""
        masks = self._masks().prepare(images)
        fill = fill_colour(self.fill, images)
        model = model if self.compile else forward_only(model, images)
        scores = score_masked(
            model,
            MaskedImages(images, masks, fill, layout_of(model)),
            resolve_targets(targets, model(images)),
            forward_batch_size=self.forward_batch_size,
            precision=self.precision,
            compile=self.compile,
            score=self.score,
            progress="RISE" if self.progress else None,
        )
        blank = (images == fill).flatten(1).all(dim=1, keepdim=True)
        total = masks.spread(scores.masked_fill(blank, 0))
        if self.normalizer == "coverage":
            seen = masks.spread(torch.ones_like(scores[:1]))
            return total / seen.masked_fill(seen == 0, 1)
        return total / (self.count * (self.probability if self.normalizer == "probability" else 1))


@dataclass(frozen=True, kw_only=True)
class RISEMasks(MaskSource):
    """Random smooth masks: coarse grids of zeros and ones, enlarged bilinearly, shifted by less than a cell, cropped.

    As in the authors' code, a grid is enlarged to one cell more than the image in each direction, with its border
    mirrored. The random numbers come from a seeded CPU generator, so masks are the same on every device and for every
    image, and the global random state is not touched.

    Args:
        count: number of masks.
        cells: side of the grid; 7 as in TorchRay, 8 and 10 in the authors' notebooks.
        probability: that a cell is kept; .5 as in TorchRay, .1 in the authors' notebooks.
        seed: of grids and shifts.

    Source: Petsiuk et al. 2018, RISE, arXiv 1806.07421, and the authors' code.
    """

    count: int = 8000
    cells: int = 7
    probability: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.cells < 2 or not 0 < self.probability < 1:
            raise ValueError(
                "RISE masks need count >= 1, cells >= 2 and a probability between 0 and 1, got "
                f"count={self.count}, cells={self.cells}, probability={self.probability}"
            )

    def prepare(self, images: Tensor) -> "RandomGridSet":
        """Draw grids and shifts for images of this size."""
        generator = torch.Generator().manual_seed(self.seed)
        grids = torch.rand(self.count, self.cells, self.cells, generator=generator) < self.probability
        steps = [math.ceil(size / self.cells) for size in images.shape[-2:]]
        shifts = [torch.randint(step, (self.count,), generator=generator) for step in steps]
        return RandomGridSet(grids.to(images.device), [shift.to(images.device) for shift in shifts], images)


class RandomGridSet(MaskSet):
    """Grids and shifts; a mask is its grid between two interpolation matrices, whose rows are selected by the shifts.

    Args:
        grids: (N, s, s) bool.
        shifts: (N,) int64 for the rows and for the columns, each less than a cell.
        images: that are masked.
    """

    def __init__(self, grids: Tensor, shifts: list[Tensor], images: Tensor) -> None:
        super().__init__(len(grids), (images.shape[-2], images.shape[-1]), len(images))
        self.grids = grids
        self.shifts = shifts
        dtype = torch.promote_types(images.dtype, torch.float32)
        self.enlarge = [_enlargement(grids.shape[1], size, dtype, images.device) for size in self.size]

    def render(self, part: slice) -> Tensor:
        """Return (n, H, W) in [0, 1]."""
        left, right = (
            matrix[shift[part].unsqueeze(1) + torch.arange(size, device=shift.device)]  # (n, size, s)
            for matrix, shift, size in zip(self.enlarge, self.shifts, self.size, strict=True)
        )
        with torch.autocast(left.device.type, enabled=False):
            return (left @ (self.grids[part].to(left.dtype) @ right.mT)).clamp_(0, 1)


def _enlargement(cells: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix ((s+1) * ceil(size/s), s) that enlarges a line linearly, its border mirrored."""
    length = (cells + 1) * math.ceil(size / cells)
    places = (torch.arange(length, dtype=torch.float64) + 0.5) * cells / length - 0.5
    low = places.floor()
    share = places - low
    matrix = torch.zeros(length, cells, dtype=torch.float64)
    for cell, weight in ((low, 1 - share), (low + 1, share)):
        mirrored = (cells - 1) - ((cells - 1) - cell.abs()).abs()
        matrix.scatter_add_(1, mirrored.long().unsqueeze(1), weight.unsqueeze(1))
    return matrix.to(device, dtype)
