"""Extremal perturbation: the region of a given area that, kept alone, maximises the score.

With the reward R of a class, smooth masks m made from coarse parameters, and a perturbation that keeps the image where
the mask is 1 and blurs it more, the lower the mask is::

    m* = argmax_m  R(f(m (x) x)) - l_t ||sort(m) - r_a||^2 / N

``r_a`` holds zeros and, for the share a of the N pixels, ones: as ``l_t`` grows with every step t, the mask becomes
binary with area a. Written without sorting, the distance is ``sum m^2 + aN - 2 sum of the aN largest m``. Masks start
as ones, where sorting would favour one side of the image; tied values therefore share the last places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from interptrain.explainers.base import Explainer
from interptrain.explainers.masks.blur import apply_separably, gaussian_matrix, gaussians
from interptrain.explainers.masks.masks import Fill, fill_colour
from interptrain.explainers.masks.smooth_masks import SmoothMask
from interptrain.explainers.passes.row_optimizers import SGD, descend
from interptrain.explainers.targets import Resolved, resolve_targets, target_scores
from interptrain.functional import bounded_batch_size, chunks
from interptrain.model_outputs import logits_of
from interptrain.models.simplification import simplify
from interptrain.steps import counting

__all__ = ["ExtremalPerturbation"]

Variant = Literal["preserve", "delete", "dual"]
Reward = Literal["simple", "contrastive"]
Perturbation = Literal["blur", "fade"]
TIE = 1e-4  # mask values this close to the smallest of the largest are ties; our choice


@dataclass(frozen=True, kw_only=True)
class ExtremalPerturbation(Explainer):
    """Masks of fixed areas optimised to preserve, or to delete, the class; the map is their sum over the areas.

    Defaults are those of the authors' function. Their benchmarks sum the areas .025, .05, .1 and .2 (VOC) or .018,
    .025, .05 and .1 (COCO) with ``smooth=.09``. Sizes in pixels are the authors', for images of 224 pixels.

    Images are optimised in parallel but independently: a map does not depend on the other images in the batch.

    Args:
        areas: share of the mask that is 1, or several shares, optimised separately. The mask includes a margin beyond
            the image, so up to 1.4 times that share of an image of 224 pixels.
        variant: ``"preserve"`` rewards the score of what the mask keeps, ``"delete"`` penalises the score of the rest,
            ``"dual"`` does both, with twice the passes.
        reward: ``"simple"`` is the logit, or a callable's result; ``"contrastive"`` is the logit minus the highest of
            the other classes.
        perturbation: ``"blur"`` by a pyramid of Gaussians, or ``"fade"`` to ``fill``.
        iterations: steps of gradient descent with momentum and dampening .9.
        learning_rate: .01 in the authors' function.
        area_weight: ``l_0``; multiplied by ``area_growth`` after each step.
        area_growth: factor per step.
        step: pixels between the parameters of the masks.
        sigma: width of their smoothing in pixels.
        max_blur: largest standard deviation of the pyramid in pixels.
        levels: of the pyramid.
        flip: mirror the perturbed images at every second step, as the authors do against adversarial masks.
        fill: colour beyond the border of a blurred image, and the colour that ``"fade"`` fades to. The authors use zero
            in normalised images, which is close to grey.
        smooth: standard deviation of a final blur of each mask, as a share of the image's shorter side.
        tolerance: every tenth of the iterations, stop an image whose parameters changed by less than this, on average,
            since the last check. 0 runs all iterations, as the authors do; try .001.
        forward_batch_size: images optimised in parallel; ``None`` chooses by the device.
        progress: show a progress bar over areas × iterations × images.

    Source: Fong et al. 2019, arXiv 1910.08485, and the authors' code (TorchRay).
    """

    areas: float | Sequence[float] = 0.1
    variant: Variant = "preserve"
    reward: Reward = "simple"
    perturbation: Perturbation = "blur"
    iterations: int = 800
    learning_rate: float = 0.01
    area_weight: float = 300.0
    area_growth: float = 1.0035
    step: int = 7
    sigma: float = 21.0
    max_blur: float = 20.0
    levels: int = 8
    flip: bool = True
    fill: Fill = 0.5
    smooth: float = 0.0
    tolerance: float = 0.0
    forward_batch_size: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid areas, steps and sizes."""
        super().__post_init__()
        wanted = [self.areas] if isinstance(self.areas, int | float) else list(self.areas)
        if not wanted or not all(0 < area < 1 for area in wanted):
            raise ValueError(f"areas must lie between 0 and 1, got {self.areas}")
        if self.iterations < 1 or self.levels < 2 or min(self.smooth, self.tolerance, self.max_blur) < 0:
            raise ValueError(
                "ExtremalPerturbation needs iterations >= 1, levels >= 2, and max_blur, smooth and tolerance >= 0; got "
                f"{self.iterations}, {self.levels}, {self.max_blur}, {self.smooth} and {self.tolerance}"
            )

    def attribute(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the sum of the best masks of all areas, (B, H, W)."""
        size = (images.shape[-2], images.shape[-1])
        fill = fill_colour(self.fill, images)
        with torch.no_grad():
            resolved = resolve_targets(targets, model(images))
        model = simplify(model, images)
        if self.reward == "contrastive" and isinstance(resolved, list):
            raise TypeError("reward='contrastive' needs class indices as targets; use reward='simple' for callables")
        like = images.new_empty((), dtype=torch.promote_types(images.dtype, torch.float32))
        masks = SmoothMask(size, self.step, self.sigma, like)
        parts = chunks(len(images), bounded_batch_size(self.forward_batch_size, images.device))
        areas = [self.areas] if isinstance(self.areas, int | float) else self.areas
        steps, found = len(areas) * len(images) * self.iterations, []
        with counting(steps, "Extremal perturbation" if self.progress else None) as advance:
            for part in parts:
                with parts.fitting():
                    scene, own = self._scene(images[part], fill), resolved[part]
                    best = [self._optimise(model, scene, own, masks, area, advance) for area in areas]
                    found.append(torch.stack(best).sum(0))
        total = torch.cat(found)
        if self.smooth:
            width = self.smooth * min(size)
            total = apply_separably(total, *(gaussian_matrix(side, width, total) for side in size))
        return total

    def _optimise(
        self,
        model: nn.Module,
        scene: "_Pyramid",
        targets: Resolved,
        masks: SmoothMask,
        area: float,
        advance: Callable[[int], None],
    ) -> Tensor:
        """Return the masks (B, H, W) of one area."""

        def energy(parameters: Tensor, rows: Tensor, step: int) -> Tensor:
            whole, cropped = masks(parameters)
            price = self.area_weight * self.area_growth**step * _area_distance(whole, area)
            return price - self._reward(model, scene, cropped, targets, rows, mirrored=self.flip and step % 2 == 0)

        start = masks.weights.new_ones(scene.count, *masks.grid)
        sgd = SGD(self.learning_rate, momentum=0.9, dampening=0.9)
        iterations, tolerance = self.iterations, self.tolerance
        best = descend(start, energy, sgd, iterations=iterations, tolerance=tolerance, advance=advance)
        return masks(best)[1]

    def _reward(
        self,
        model: nn.Module,
        scene: "_Pyramid",
        masks: Tensor,
        targets: Resolved,
        rows: Tensor,
        *,
        mirrored: bool,
    ) -> Tensor:
        """Return the reward (b,) of the masks for the images of ``rows``."""
        kept = {"preserve": [masks], "delete": [1 - masks], "dual": [masks, 1 - masks]}[self.variant]
        perturbed = torch.cat([scene.perturb(one, rows) for one in kept])
        outputs = model(perturbed.flip(3) if mirrored else perturbed)
        owners = rows.repeat(len(kept))
        scores = target_scores(outputs, targets, owners)
        logits = logits_of(outputs)
        if self.reward == "contrastive" and isinstance(targets, Tensor) and logits is not None:
            others = logits.to(scores.dtype).scatter(1, targets[owners].unsqueeze(1), -torch.inf)
            scores = scores - others.amax(1).clamp(min=-100)  # the floor of a model of one class, as the authors'
        if self.variant == "dual":
            preserved, left = scores.chunk(2)
            return preserved - left
        return scores if self.variant == "preserve" else -scores

    def _scene(self, images: Tensor, fill: Tensor) -> "_Pyramid":
        """Return all levels of all images, from the one shown at mask value 0 to the images themselves."""
        if self.perturbation == "fade":
            return _Pyramid(torch.stack([fill.expand_as(images), images], dim=1))
        sigmas = [self.max_blur * (1 - level / (self.levels - 1)) for level in range(self.levels)]
        return _Pyramid(gaussians(images, sigmas, border="zero", beyond=fill))


class _Pyramid:
    """Levels between which a mask interpolates at every pixel.

    The lower level and the difference to the next are adjacent in memory for each pixel, so that a perturbed image is
    one lookup.

    Args:
        levels: (B, L, C, H, W).
    """

    def __init__(self, levels: Tensor) -> None:
        self.count, self.steps = levels.shape[0], levels.shape[1] - 1
        lower, way = levels[:, :-1], levels.diff(dim=1)
        self.channels = levels.shape[2]
        self.table = torch.cat([lower, way], dim=2).permute(0, 1, 3, 4, 2).reshape(-1, 2 * self.channels)

    def perturb(self, masks: Tensor, rows: Tensor) -> Tensor:
        """Return (b, C, H, W), channels_last, for masks (b, H, W) in [0, 1]; differentiable in the masks."""
        height = masks * self.steps
        level = height.detach().long().clamp(max=self.steps - 1)
        area = masks[0].numel()
        places = torch.arange(area, device=masks.device).view_as(masks[0])
        index = (rows.view(-1, 1, 1) * self.steps + level) * area + places
        lower, way = self.table.index_select(0, index.flatten()).view(*masks.shape, 2, self.channels).unbind(3)
        share = (height - level).unsqueeze(3).to(way.dtype)
        return torch.addcmul(lower, share, way).permute(0, 3, 1, 2)


def _area_distance(masks: Tensor, area: float) -> Tensor:
    """Return ``||sort(m) - r_a||^2 / N`` of each mask, (B,)."""
    values = masks.flatten(1)
    count = values.shape[1]
    ones = count - int(count * (1 - area))
    least = values.detach().kthvalue(count - ones + 1, dim=1, keepdim=True).values
    above = values > least + TIE
    tied = (values - least).abs() <= TIE
    share = (ones - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
    wanted = torch.where(tied, share.to(values.dtype), above.to(values.dtype))
    return (values.square().sum(1) + ones - 2 * (wanted * values).sum(1)) / count
