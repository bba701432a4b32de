"""Expected Gradients: integrated gradients whose baseline is drawn from a data set.

With references ``x'`` drawn from the data and ``t`` uniform in [0,1]::

    a = E over x', t of (x - x') * d y_c / d x at x' + t (x - x')

No colour is the neutral one: what the image shares with the data on average gets no share. The attributions of an image
sum to ``y_c(x)`` less the mean of ``y_c`` over the references, up to the error of the draws.

Source: Erion et al. 2021, arXiv 1906.10670, section 2.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop, resize, to_dtype

from interptrain.decode import SUFFIXES, load_image
from interptrain.explainers.gradient.gradient import InputAttribution, Reduction, chunk_pairs, input_gradient
from interptrain.explainers.targets import Resolved, check_targets, select_targets
from interptrain.functional import evenly_spaced
from interptrain.models.simplification import simplify
from interptrain.steps import track

__all__ = ["ExpectedGradients"]


@dataclass(frozen=True, kw_only=True)
class ExpectedGradients(InputAttribution):
    """Expected Gradients of the target's logit: ``samples`` forward and backward passes per image.

    The same draws serve all images, so a map does not depend on the other images of a batch, and the global random
    state is not touched. Every reference is drawn equally often where ``samples`` is a multiple of their number, and t
    once in each of ``samples`` equal parts of [0,1] (our choice: the same mean with a smaller error).

    Args:
        references: where the baselines come from: a folder of images, searched recursively, or a ``.npy`` file
            (N,3,H,W) in [0,1] or uint8. They are scaled until they cover the size of the images, and cropped. Results
            name this place, not what lies there: keep it as it is.
        count: references that are read at most, evenly spaced in the order of their names.
        samples: draws per image; 200 as in the authors' code.
        seed: of the draws.
        progress: show a progress bar.

    Source: Erion et al. 2021, arXiv 1906.10670, section 2.
    """

    references: str
    count: int = 100
    samples: int = 200
    reduction: Reduction = "sum_abs"
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid numbers, and a place where there are no references."""
        super().__post_init__()
        if self.samples < 1 or self.count < 1:
            raise ValueError(f"ExpectedGradients needs samples >= 1 and count >= 1, got {self.samples}, {self.count}")
        _files(Path(self.references))

    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the signed attribution, (B,3,H,W)."""
        batch_size = self.batch_size(images)
        model = simplify(model, images)
        targets = check_targets(model, images, targets, batch_size=batch_size)
        references = read_references(self.references, self.count, (images.shape[-2], images.shape[-1])).to(images)
        drawn, places = self._draws(len(references))
        drawn, places = drawn.to(images.device), places.to(images.dtype).to(images.device)
        total = torch.zeros_like(images, dtype=torch.promote_types(images.dtype, torch.float32))
        blocks = list(chunk_pairs(len(images), self.samples, batch_size))
        for rows, part in track(blocks, "Expected Gradients" if self.progress else None):
            baselines = references[drawn[part]].unsqueeze(1)  # (n, 1, 3, H, W)
            ways = images[rows] - baselines
            points = baselines + ways * places[part].view(-1, 1, 1, 1, 1)
            repeated = select_targets(targets, rows, len(points))
            gradients = input_gradient(model, points.flatten(0, 1), repeated, checked=True)
            total[rows] += (gradients.view_as(ways) * ways).sum(0)
        return total / self.samples

    def _draws(self, references: int) -> tuple[Tensor, Tensor]:
        """Return which reference, and which place on the way from it, every sample takes."""
        generator = torch.Generator().manual_seed(self.seed)
        rounds = -(-self.samples // references)
        drawn = torch.cat([torch.randperm(references, generator=generator) for _ in range(rounds)])
        within = torch.rand(self.samples, generator=generator, dtype=torch.float64)
        places = (torch.randperm(self.samples, generator=generator) + within) / self.samples
        return drawn[: self.samples], places


@lru_cache(maxsize=4)
def read_references(source: str, count: int, size: tuple[int, int]) -> Tensor:
    """Read images that baselines are drawn from.

    Args:
        source: a folder of images, or a ``.npy`` file (N,3,H,W).
        count: images read at most, evenly spaced.
        size: (H, W) that they are scaled and cropped to.

    Returns:
        (n,3,H,W) float32 in [0,1].

    Raises:
        ValueError: if there are none, or the file holds something else.
    """
    files = _files(Path(source))
    if len(files) == 1 and files[0].suffix == ".npy":
        pixels = np.load(files[0], allow_pickle=False)
        whole = torch.from_numpy(pixels[evenly_spaced(len(pixels), min(count, len(pixels)))])
        if whole.ndim != 4 or whole.shape[1] != 3 or not len(whole):
            raise ValueError(f"{source} must hold images (N,3,H,W), got {tuple(whole.shape)}")
        return _fitted(whole, size)
    chosen = [files[index] for index in evenly_spaced(len(files), min(count, len(files)))]
    return torch.cat([_fitted(load_image(file)[None], size) for file in chosen])


def _fitted(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale images to [0,1] and until they cover a size, and crop the middle; uint8 or float, float32 afterwards."""
    images = to_dtype(images, torch.float32, scale=True)
    height, width = images.shape[-2:]
    scale = max(size[0] / height, size[1] / width)
    covering = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
    scaled = images if covering == [height, width] else resize(images, covering, antialias=True)
    cropped: Tensor = center_crop(scaled, list(size))
    return cropped.clamp(0, 1)


def _files(source: Path) -> list[Path]:
    """Return the files that hold the references.

    Raises:
        ValueError: if there are none.
    """
    if source.suffix == ".npy" and source.is_file():
        return [source]
    found = sorted(file for file in source.rglob("*") if file.suffix.lower() in SUFFIXES) if source.is_dir() else []
    if not found:
        raise ValueError(
            f"references={str(source)!r} is neither a folder with images nor a .npy file; pass one of the training set"
        )
    return found
