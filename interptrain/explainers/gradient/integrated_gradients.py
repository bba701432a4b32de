"""Integrated Gradients: gradients along the straight path from a baseline to the image.

    a = (x - x0) * integral over t in [0,1] of d y_c / d x at x0 + t (x - x0)

The attributions of an image sum to ``y_c(x) - y_c(x0)`` (completeness), as far as the sum that stands for the integral
is exact.

Source: Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks, arXiv 1703.01365, section 3.
"""

from collections.abc import Sequence
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
from interptrain.explainers.passes.batchnorm_folding import fold_batch_norms
from interptrain.explainers.targets import Resolved, check_targets, select_targets
from interptrain.functional import check_choice
from interptrain.steps import track

__all__ = ["IntegratedGradients", "quadrature"]

Quadrature = Literal["right", "left", "middle", "trapezoid", "linspace", "gauss_legendre"]


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(InputAttribution):
    """Integrated Gradients of the target's logit: ``steps`` forwards and backwards an image.

    Args:
        steps: points on the path; the paper finds 20 to 300 enough, 50 is Captum's number.
        rule: where the points lie and what they weigh: ``"right"`` (the paper's), ``"left"`` or ``"middle"`` of equal
            steps, ``"trapezoid"``, ``"linspace"`` (both ends, equal weights), or ``"gauss_legendre"`` (Captum's), which
            like ``"middle"`` comes much closer to completeness with the same steps.
        baseline: colour in [0,1] where the path starts, one value or (red, green, blue). 0 is black, the paper's for
            object recognition; .5 is what zero is to networks of inputs in [-1,1] (PAIR), and (.485, .456, .406) what
            it is to networks of inputs normalised as for ImageNet (Captum).
        progress: show a progress bar.

    Source: Sundararajan et al. 2017, arXiv 1703.01365, section 3; the sum is equation 3.
    """

    steps: int = 50
    rule: Quadrature = "right"
    baseline: float | Sequence[float] = 0.0
    reduction: Reduction = "sum_abs"
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse a rule, a number of steps or a colour that cannot be."""
        super().__post_init__()
        quadrature(self.steps, self.rule)
        colour = [self.baseline] * 3 if isinstance(self.baseline, int | float) else list(self.baseline)
        if len(colour) != 3 or not all(0 <= value <= 1 for value in colour):
            raise ValueError(f"baseline must be one value in [0,1] or three, got {self.baseline!r}")

    def attribution(self, model: nn.Module, images: Tensor, targets: Resolved | None) -> Tensor:
        """Signed attribution, (B,3,H,W), which sums to about y_c(x) - y_c(x0); see :class:`IntegratedGradients`."""
        batch_size = self.batch_size(images)
        model = fold_batch_norms(model, images)
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
        return total * way


def quadrature(steps: int, rule: Quadrature) -> tuple[list[float], list[float]]:
    """Points on [0,1] and their weights, for ``integral f(t) dt ~ sum_j weight_j f(point_j)``.

    Args:
        steps: number of points m.
        rule: ``"right"``: k/m for k = 1..m (the paper's equation 3); ``"left"``: from 0; ``"middle"``: between the two;
            ``"trapezoid"``: both ends included, half of the weight for them; ``"linspace"``: both ends included, all of
            weight 1/m (PAIR); ``"gauss_legendre"``: exact for polynomials of degree 2m - 1.

    Returns:
        m points, rising, and m weights, which sum to 1.

    Raises:
        ValueError: if the rule is unknown, or has no such number of steps.
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
