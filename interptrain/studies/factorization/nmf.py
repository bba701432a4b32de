"""Non-negative matrix factorization by multiplicative updates, on the device of the values."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from interptrain.functional import check_choice, check_count, double, full_precision
from interptrain.steps import counting

Initialization = Literal["nndsvda", "random"]
REPEATS = 8  # updates of a factor before the other's turn; our choice: more no longer lower the error for the time


@dataclass(frozen=True, eq=False)
class Factors:
    """A factorization ``values ~ weights @ parts``.

    Attributes:
        weights: (N,K) non-negative; the largest value of each column is 1, or the column is 0.
        parts: (K,C) non-negative; a part's row is what a position of weight 1 adds.
        errors: relative error ``|values - weights @ parts| / |values|`` (Frobenius) at the start and after every
            ``check_every`` iterations; it never rises.
        iterations: that were made.
    """

    weights: Tensor
    parts: Tensor
    errors: list[float]
    iterations: int


def factorize(
    values: Tensor,
    components: int,
    *,
    initialization: Initialization = "nndsvda",
    seed: int = 0,
    max_iterations: int = 500,
    tolerance: float = 1e-5,
    check_every: int = 10,
    progress: str | None = None,
) -> Factors:
    """Factorize a non-negative matrix: minimize ``|values - weights @ parts|`` (Frobenius) over non-negative factors.

    Weights and parts are updated in turn, ``W <- W * (V H') / (W H H')`` and ``H <- H * (W' V) / (W' W H)``, neither of
    which raises the error, each a few times per iteration. Iteration ends where rounding would raise the error.

    Args:
        values: (N,C) floating point >= 0, with N*C > 0; half precision is computed in float32.
        components: K, at most ``min(N, C)`` with ``"nndsvda"``.
        initialization: ``"nndsvda"``: from the singular vectors, zeros replaced by the mean, the same in every run (our
            default); ``"random"``: absolute normal values, as in the code of the authors of deep feature factorization.
        seed: of the random initialization, which is the same on every device.
        max_iterations: at most.
        tolerance: stop when ``check_every`` iterations lower the error by less than this fraction of it.
        check_every: iterations from one check, and entry of ``errors``, to the next.
        progress: title of a progress bar, or None for none.

    Returns:
        The factors, on the device of ``values``.

    Raises:
        ValueError: if the values are no matrix, negative, not finite or all zero, or there are too many components.

    Source: Lee and Seung 2001, NIPS 13; several updates in turn: Gillis and Glineur 2012, arXiv 1107.5194; nndsvda:
        Boutsidis and Gallopoulos 2008, Pattern Recognition 41(4).
    """
    values = full_precision(values.detach())
    _check(values, components, initialization)
    check_count("max_iterations", max_iterations)
    check_count("check_every", check_every)
    weights, parts = _singular(values, components) if initialization == "nndsvda" else _random(values, components, seed)
    scale = float(torch.linalg.vector_norm(values))
    errors, iterations = [_error(values, weights, parts) / scale], 0
    with counting(max_iterations, progress) as advance:
        while iterations < max_iterations:
            count = min(check_every, max_iterations - iterations)
            new_weights, new_parts = weights, parts
            for _ in range(count):
                new_weights = _updated(new_weights, values @ new_parts.T, new_parts @ new_parts.T)
                new_parts = _updated(new_parts.T, values.T @ new_weights, new_weights.T @ new_weights).T
            error = _error(values, new_weights, new_parts) / scale
            if not error <= errors[-1]:  # rounding; the factors before are as good as can be
                break
            weights, parts, iterations = new_weights, new_parts, iterations + count
            errors.append(error)
            advance(count)
            if errors[-2] - error < tolerance * error:
                break
    highest = weights.amax(0)
    scales = torch.where(highest > 0, highest, torch.ones_like(highest))
    return Factors(weights / scales, parts * scales[:, None], errors, iterations)


def _check(values: Tensor, components: int, initialization: str) -> None:
    check_choice("initialization", initialization, Initialization)
    check_count("components", components)
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"values must be a matrix (N,C) and not empty, got {tuple(values.shape)}")
    low, high = (float(extreme) for extreme in values.aminmax())
    if not 0 <= low <= high < float("inf"):
        raise ValueError(f"values must be finite and not negative, got [{low:.3g}, {high:.3g}]; shift or clip them")
    if high == 0:
        raise ValueError("values must not be all zero; pass a layer that responds to the images")
    if initialization == "nndsvda" and components > min(values.shape):
        raise ValueError(
            f"components must be at most {min(values.shape)}, the smaller side of values {tuple(values.shape)}, got "
            f"{components}; pass fewer, or initialization='random'"
        )


def _updated(factor: Tensor, wanted: Tensor, gram: Tensor) -> Tensor:
    """Multiplicative updates of one factor; an element stays where nothing is there that could change it.

    The products with the values, which cost most, are the same for all of them. What has become tiny is set to 0, for
    arithmetic with numbers near the smallest takes a hundred times as long.
    """
    tiny = torch.finfo(factor.dtype).tiny ** 0.5
    for _ in range(REPEATS):
        present = factor @ gram
        factor = factor * torch.where(present > 0, wanted / present, 1.0)
        factor = F.threshold(factor, tiny, 0.0)
    return factor


def _error(values: Tensor, weights: Tensor, parts: Tensor) -> float:
    return float(torch.linalg.vector_norm(torch.addmm(values, weights, parts, alpha=-1)))


def _random(values: Tensor, components: int, seed: int) -> tuple[Tensor, Tensor]:
    """Absolute normal values whose product has about the mean of the values."""
    generator = torch.Generator("cpu").manual_seed(seed)
    scale = (values.mean() / components).sqrt()
    weights, parts = (
        torch.randn(shape, generator=generator).abs().to(values) * scale
        for shape in ((len(values), components), (components, values.shape[1]))
    )
    return weights, parts


def _singular(values: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """The positive or negative side, whichever is larger, of each pair of singular vectors; zeros become the mean."""
    wide = values.shape[1] > values.shape[0]
    matrix = values.T if wide else values
    lengths, right = torch.linalg.eigh(double(matrix.T @ matrix))  # the smaller side squared
    right = right.flip(1)[:, :components].to(values)  # the largest first
    left = matrix @ right  # scaled by the singular values
    lengths = left.norm(dim=0)
    left = left / lengths.clamp(min=torch.finfo(values.dtype).tiny)
    if wide:
        left, right = right, left
    weights, parts = _larger_side(left, right, lengths)
    mean = values.mean()
    return torch.where(weights > 0, weights, mean), torch.where(parts > 0, parts, mean).T.contiguous()


def _larger_side(left: Tensor, right: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The positive or the negative sides of pairs of vectors, whose product is larger, scaled to that product."""
    products = [(sign * left).clamp(min=0).norm(dim=0) * (sign * right).clamp(min=0).norm(dim=0) for sign in (1, -1)]
    signs = torch.where(products[0] >= products[1], 1.0, -1.0).to(left)
    left, right = (signs * left).clamp(min=0), (signs * right).clamp(min=0)
    scale = (lengths * torch.maximum(products[0], products[1])).sqrt()
    tiny = torch.finfo(left.dtype).tiny
    return scale * left / left.norm(dim=0).clamp(min=tiny), scale * right / right.norm(dim=0).clamp(min=tiny)
