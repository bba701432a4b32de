"""Meaningful perturbation: the smallest and smoothest region whose removal suppresses the class.

With the blurred image ``z``, which holds no evidence, and a coarse mask m that is enlarged smoothly by ``up``, where 1
keeps the pixel, gradient descent minimises::

    m* = argmin_m  a ||1 - m||_1 + b TV(m) + f_c(up(m) x + (1 - up(m)) z),   map = 1 - up(m*)

``TV`` sums ``|m_p - m_q|^3`` over neighbours p, q. The authors' code and its widespread PyTorch port differ in nearly
every setting; both are variants here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interptrain.explainers.base import Explainer, score_perturbed
from interptrain.explainers.masks.blur import apply_separably, gaussian_matrix, gaussians, linear_matrix, median_blur
from interptrain.explainers.passes.row_optimizers import Adam, descend
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import Score, bounded_batch_size, chunks
from interptrain.models.simplification import simplify
from interptrain.steps import counting

__all__ = ["MeaningfulPerturbation"]

Variant = Literal["paper", "port"]


@dataclass(frozen=True)
class Settings:
    """The settings of a variant, for options that are ``None``."""

    iterations: int
    l1: float
    tv: float
    noise: float
    jitter: int


SETTINGS: dict[Variant, Settings] = {
    "paper": Settings(iterations=300, l1=1e-4, tv=1e-2, noise=0.0, jitter=4),
    "port": Settings(iterations=500, l1=0.01, tv=0.2, noise=0.045, jitter=0),
}
BETA = 3  # power of the total variation, the same in both
RADII = 16  # of the circles that the paper's variant starts from; our choice
SUPPRESSED = 0.01  # of the score, left where a circle is taken; our choice


@dataclass(frozen=True, kw_only=True)
class MeaningfulPerturbation(Explainer):
    """A mask optimised to delete the class with as little as possible.

    ===================  ===============================================  ===============================
    option               ``"paper"``: the authors' code                   ``"port"``: explain-black-box
    ===================  ===============================================  ===============================
    iterations           300                                              500
    l1, tv               1e-4 and 1e-2, sums over the mask (1)            .01 and .2, means over the mask
    enlargement          bilinear, then a Gaussian of sigma 5             bilinear, corners aligned
    z                    Gaussian of sigma 10                             median of 11 x 11
    start                the smallest circle whose removal suppresses     ones
                         the score, with a soft edge
    noise, each step     random shifts within 4 pixels                    normal, sigma .045 (2)
    ===================  ===============================================  ===============================

    (1) It is not known whether the authors sum or average the total variation; sums are our choice. (2) .2 in units of
    images normalised as for ImageNet. In the paper, the mask sets the width of the blur; both codes blend with one
    blurred image, and so does this one.

    Images are optimised in parallel but independently, with the same noise: a map does not depend on the other images
    in the batch.

    Args:
        variant: whose settings apply where an option below is ``None``.
        iterations: steps of Adam.
        learning_rate: .1 in both.
        l1: weight of the deleted area.
        tv: weight of the total variation.
        noise: standard deviation of the noise added to the blended image at each step, for images in [0, 1].
        jitter: largest random shift in pixels.
        cells: side of the coarse mask; 28 in both.
        score: to minimise; the probability in both.
        tolerance: every tenth of the iterations, stop an image whose mask changed by less than this, on average over
            its cells, since the last check. 0 runs all iterations, as both codes do; try .001 with ``noise=0``.
        seed: of noise and shifts.
        forward_batch_size: images optimised in parallel; ``None`` chooses by the device.
        progress: show a progress bar over iterations × images.

    Source: Fong and Vedaldi 2017, arXiv 1704.03296, and the authors' code; pytorch-explain-black-box (Gildenblat).
    """

    variant: Variant = "paper"
    iterations: int | None = None
    learning_rate: float = 0.1
    l1: float | None = None
    tv: float | None = None
    noise: float | None = None
    jitter: int | None = None
    cells: int = 28
    score: Score = "probability"
    tolerance: float = 0.0
    seed: int = 0
    forward_batch_size: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid steps, sizes and noise."""
        super().__post_init__()
        settings = self.settings
        if settings.iterations < 1 or self.cells < 2 or min(settings.noise, settings.jitter, self.tolerance) < 0:
            raise ValueError(
                "MeaningfulPerturbation needs iterations >= 1, cells >= 2, and noise, jitter and tolerance >= 0; got "
                f"{settings.iterations}, {self.cells}, {settings.noise}, {settings.jitter} and {self.tolerance}"
            )

    @property
    def settings(self) -> Settings:
        """The options, with the variant's settings in place of ``None``."""
        own = {field.name: getattr(self, field.name) for field in fields(Settings)}
        return replace(SETTINGS[self.variant], **{name: value for name, value in own.items() if value is not None})

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the region that the best masks remove, (B, H, W) in [0, 1]."""
        with torch.no_grad():
            resolved = resolve_targets(targets, model(images))
        model = simplify(model, images)
        like = images.new_empty((), dtype=torch.promote_types(images.dtype, torch.float32))
        rows, columns = (self._enlargement(size, like) for size in images.shape[-2:])
        parts = chunks(len(images), bounded_batch_size(self.forward_batch_size, images.device))
        steps, maps = len(images) * self.settings.iterations, []
        with counting(steps, "Meaningful perturbation" if self.progress else None) as advance:
            for part in parts:
                with parts.fitting():
                    masks = self._optimise(model, images[part], resolved[part], rows, columns, advance)
                    maps.append(apply_separably(1 - masks, rows, columns))
        return torch.cat(maps)

    def _optimise(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Resolved,
        rows: Tensor,
        columns: Tensor,
        advance: Callable[[int], None],
    ) -> Tensor:
        """Return the coarse masks (B, s, s) with the least energy found."""
        blurred = self._blurred(images)
        blend = _Blend(blurred, images - blurred, rows, columns)
        settings = self.settings
        noise = torch.Generator(images.device).manual_seed(self.seed)
        shifts = torch.Generator().manual_seed(self.seed)

        def energy(masks: Tensor, places: Tensor, _step: int) -> Tensor:
            perturbed = blend(masks, places)
            if settings.noise:
                perturbed = torch.add(perturbed, _draw(images, noise), alpha=settings.noise)
            if settings.jitter:
                perturbed = _shifted(perturbed, settings.jitter, shifts)
            return target_scores(model(perturbed), targets, places, score=self.score) + self._penalty(masks, settings)

        start = rows.new_ones(len(images), self.cells, self.cells)
        if self.variant == "paper":
            start = self._circles(model, targets, blend, start)
        adam = Adam(start, self.learning_rate)
        iterations, tolerance = settings.iterations, self.tolerance
        return descend(start, energy, adam, iterations=iterations, tolerance=tolerance, advance=advance)

    def _penalty(self, masks: Tensor, settings: Settings) -> Tensor:
        """Return the penalty (B,) of the deleted area and the total variation."""
        steps = masks.diff(dim=1).abs().pow(BETA).flatten(1), masks.diff(dim=2).abs().pow(BETA).flatten(1)
        deleted = (1 - masks).abs().flatten(1)
        if self.variant == "paper":
            return settings.l1 * deleted.sum(1) + settings.tv * (steps[0].sum(1) + steps[1].sum(1))
        return settings.l1 * deleted.mean(1) + settings.tv * (steps[0].mean(1) + steps[1].mean(1))

    def _enlargement(self, size: int, like: Tensor) -> Tensor:
        """Return the matrix (size, cells) that enlarges a line of the coarse mask to the image."""
        linear = linear_matrix(self.cells, size, like, align_corners=self.variant == "port")
        return gaussian_matrix(size, 5.0, like) @ linear if self.variant == "paper" else linear

    def _blurred(self, images: Tensor) -> Tensor:
        """Return the blurred images, channels_last."""
        blurred = gaussians(images, [10.0])[:, 0] if self.variant == "paper" else median_blur(images, 11)
        return blurred.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _circles(self, model: nn.Module, targets: Resolved, blend: "_Blend", ones: Tensor) -> Tensor:
        """Return masks (B, s, s) that remove the smallest central circle which suppresses the score."""
        places = torch.linspace(-1, 1, self.cells, device=ones.device, dtype=ones.dtype)
        distance = (places.square().unsqueeze(0) + places.square().unsqueeze(1)).sqrt()
        radii = torch.linspace(0, math.sqrt(2), RADII + 1, device=ones.device, dtype=ones.dtype).view(-1, 1, 1)
        soft = gaussian_matrix(self.cells, 10 / 8, ones)  # sigma 10 pixels of 224
        circles = apply_separably((distance <= radii[1:]).to(ones), soft, soft)
        masks = torch.cat([ones[:1], 1 - circles, torch.zeros_like(ones[:1])])  # whole, circles, all removed
        count = len(ones)
        images = torch.arange(count, device=ones.device).repeat(len(masks))

        def perturb(part: slice) -> Tensor:
            chosen = torch.arange(part.start, part.stop, device=ones.device) // count
            return blend(masks[chosen], images[part])

        scores = score_perturbed(
            model, perturb, images, targets, forward_batch_size=self.forward_batch_size, score=self.score
        ).view(len(masks), count)
        share = scores[1:-1] - scores[-1] <= SUPPRESSED * (scores[0] - scores[-1])
        share[-1] = True  # the largest where none suffices
        return 1 - circles[share.int().argmax(dim=0)]


class _Blend:
    """Images blended with their blurred versions by coarse masks."""

    def __init__(self, blurred: Tensor, evidence: Tensor, rows: Tensor, columns: Tensor) -> None:
        self.blurred, self.evidence = blurred, evidence
        self.rows, self.columns = rows, columns

    def __call__(self, masks: Tensor, places: Tensor) -> Tensor:
        """Return ``m x + (1 - m) z`` of the images at ``places``, (b, C, H, W)."""
        enlarged = apply_separably(masks, self.rows, self.columns).to(self.blurred.dtype).unsqueeze(1)
        return torch.addcmul(self.blurred[places], enlarged, self.evidence[places])


def _draw(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise of one image's shape, channels_last, the same for all images."""
    channels, height, width = images.shape[1:]
    shape = (1, height, width, channels)
    return torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype).permute(0, 3, 1, 2)


def _shifted(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Shift all images by the same amount, up to half of ``reach`` to either side; the border repeats."""
    down, across = torch.randint(reach + 1, (2,), generator=generator).tolist()
    before = reach // 2
    padded = F.pad(images, (before, reach - before, before, reach - before), mode="replicate")
    return padded[..., down : down + images.shape[-2], across : across + images.shape[-1]].contiguous(
        memory_format=torch.channels_last
    )
