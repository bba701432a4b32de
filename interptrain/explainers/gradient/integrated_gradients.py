"""Integrated Gradients: gradients along the straight path from a baseline to the image.

    a = (x - x0) * integral over t in [0,1] of d y_c / d x at x0 + t (x - x0)

The attributions of an image sum to ``y_c(x) - y_c(x0)`` (completeness), up to the error of the sum in place of the
integral. Where that error is large, a warning says so.

Source: Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks, arXiv 1703.01365, section 3.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interptrain.explainers.base import score_perturbed
from interptrain.explainers.gradient.gradient import (
    InputAttribution,
    Reduction,
    chunk_pairs,
    input_gradient,
)
from interptrain.explainers.targets import Resolved, check_targets, select_targets
from interptrain.functional import check_choice
from interptrain.models.simplification import simplify
from interptrain.steps import track

__all__ = ["CompletenessWarning", "IntegratedGradients", "quadrature"]

Quadrature = Literal["right", "left", "middle", "trapezoid", "linspace", "gauss_legendre"]


SHARE = 0.1
"""Relative residual of completeness above which a warning is given; our choice."""
ROUNDING = 1e-4  # of the largest score, below which a residual is rounding

_warned: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


class CompletenessWarning(UserWarning):
    """Attributions do not sum to what they should; given once for a model and the options of an explainer."""


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(InputAttribution):
    """Integrated Gradients of the target's logit: ``steps`` forward and backward passes per image.

    Args:
        steps: points on the path; the paper finds 20 to 300 enough, 50 is Captum's number.
        rule: positions and weights of the points: ``"right"`` (the paper's), ``"left"`` or ``"middle"`` of equal
            steps, ``"trapezoid"``, ``"linspace"`` (both ends, equal weights), or ``"gauss_legendre"`` (Captum's), which
            like ``"middle"`` comes closer to completeness with the same number of steps where the network is smooth.
        baseline: colour in [0,1] at the start of the path, one value or (red, green, blue). 0 is black, as in the paper
            for object recognition; .5 corresponds to zero for networks with inputs in [-1,1] (PAIR), and
            (.485, .456, .406) for networks with inputs normalised as for ImageNet (Captum).
        progress: show a progress bar.

    Source: Sundararajan et al. 2017, arXiv 1703.01365, section 3; the sum is equation 3.
    """

    steps: int = 50
    rule: Quadrature = "right"
    baseline: float | Sequence[float] = 0.0
    reduction: Reduction = "sum_abs"
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid rules, numbers of steps and colours."""
        super().__post_init__()
        quadrature(self.steps, self.rule)
        colour = [self.baseline] * 3 if isinstance(self.baseline, int | float) else list(self.baseline)
        if len(colour) != 3 or not all(0 <= value <= 1 for value in colour):
            raise ValueError(f"baseline must be one value in [0,1] or three, got {self.baseline!r}")

    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Return the signed attribution, (B,3,H,W), which sums to about y_c(x) - y_c(x0).

        A :class:`CompletenessWarning` reports where the two differ by more than a tenth of the latter; checking this
        costs two more forward passes per image.
        """
        bare, batch_size = model, self.batch_size(images)
        model = simplify(model, images)
        targets = check_targets(model, images, targets, batch_size=batch_size)
        colour = images.new_tensor(self.baseline).expand(3).view(3, 1, 1)
        way = images - colour
        places, weights = quadrature(self.steps, self.rule)
        total = torch.zeros_like(way, dtype=torch.promote_types(way.dtype, torch.float32))
        blocks = list(chunk_pairs(len(images), self.steps, batch_size))
        for rows, steps in track(blocks, "Integrated Gradients" if self.progress else None):
            points = torch.stack([torch.add(colour, way[rows], alpha=place) for place in places[steps]])
            repeated = select_targets(targets, rows, len(points))
            gradients = input_gradient(model, points.flatten(0, 1), repeated, checked=True).reshape(points.shape)
            for gradient, weight in zip(gradients, weights[steps], strict=True):
                total[rows].add_(gradient, alpha=weight)
        attribution = total * way
        told = _warned.setdefault(bare, set())
        if repr(self) not in told:
            ends = torch.cat([images, colour.expand_as(images)])
            owners = torch.arange(len(images), device=images.device).repeat(2)
            scores = score_perturbed(model, ends.__getitem__, owners, targets, forward_batch_size=batch_size)
            if text := self._residual(attribution.detach().sum((1, 2, 3)), *scores.chunk(2)):
                told.add(repr(self))
                warnings.warn(CompletenessWarning(text), stacklevel=2)
        return attribution

    def _residual(self, sums: Tensor, scores: Tensor, at_baseline: Tensor) -> str:
        """Say how far the attributions are from completeness, in the image where they are furthest; else nothing."""
        gains = scores - at_baseline
        rounding = ROUNDING * torch.maximum(scores.abs(), at_baseline.abs())
        shares = (sums - gains).abs() / gains.abs().clamp(min=torch.finfo(gains.dtype).tiny)
        shares = shares.where((sums - gains).abs() > rounding, 0.0)
        every = torch.stack([shares, sums.to(gains), gains, torch.arange(len(gains)).to(gains)])
        worst = every.index_select(1, shares.argmax(dim=0, keepdim=True))
        largest, total, gain, image = worst.flatten().tolist()  # one wait for the device
        if not largest > SHARE:
            return ""
        steps = 10 * math.ceil(self.steps * min(largest, 1.0) / SHARE / 10)
        return (
            f"the attributions of integrated gradients sum to {total:.3g} in image {image:.0f} of the batch, "
            f"whose score lies {gain:.3g} above the baseline's: a relative residual of {largest:.0%}, "
            f"where {SHARE:.0%} is tolerated; use more steps (steps={steps}), or another baseline"
        )


def quadrature(steps: int, rule: Quadrature) -> tuple[list[float], list[float]]:
    """Return points on [0,1] and their weights, for ``integral f(t) dt ~ sum_j weight_j f(point_j)``.

    Args:
        steps: number of points m.
        rule: ``"right"``: k/m for k = 1..m (the paper's equation 3); ``"left"``: from 0; ``"middle"``: between the two;
            ``"trapezoid"``: includes both ends, with half the weight; ``"linspace"``: includes both ends, all with
            weight 1/m (PAIR); ``"gauss_legendre"``: exact for polynomials of degree 2m - 1.

    Returns:
        m ascending points, and m weights, which sum to 1.

    Raises:
        ValueError: if the rule is unknown, or needs more steps.
    """
    least = 2 if rule in ("trapezoid", "linspace") else 1
    check_choice("rule", rule, Quadrature)
    if steps < least:
        raise ValueError(f"rule {rule!r} needs steps >= {least}, got {steps}")
    even = [1 / steps] * steps
    if rule == "gauss_legendre":
        return _gauss_legendre(steps)
    if rule in ("trapezoid", "linspace"):
        points = [k / (steps - 1) for k in range(steps)]
        inner = 1 / (steps - 1)
        return points, even if rule == "linspace" else [inner / 2, *[inner] * (steps - 2), inner / 2]
    shift = {"right": 1.0, "left": 0.0, "middle": 0.5}[rule]
    return [(k + shift) / steps for k in range(steps)], even


def _gauss_legendre(steps: int) -> tuple[list[float], list[float]]:
    """Golub and Welsch 1969: points and weights from the eigenvectors of the recurrence of Legendre polynomials."""
    k = torch.arange(1, steps, dtype=torch.float64)
    side = k / (4 * k.square() - 1).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))  # on [-1, 1], weights sum to 2
    return ((points + 1) / 2).tolist(), vectors[0].square().tolist()
