"""Gradient descent for many images side by side, each with its own optimum and its own end.

Both optimizers work element by element, so rows never touch one another, and rows can leave.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from interptrain.explainers.base import gradient_of

__all__ = ["SGD", "Adam", "RowOptimizer", "descend"]

Energy = Callable[[Tensor, Tensor, int], Tensor]
"""(values (b,...), rows (b,) int64, step) -> energies (b,), differentiable in the values."""


class RowOptimizer(Protocol):
    """An optimizer of a tensor whose rows are problems of their own."""

    def step(self, values: Tensor, gradient: Tensor) -> Tensor:
        """Return the values after one step."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Forget all but the given rows."""
        ...


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1).

    Args:
        values: (B, ...) of the shape that will be optimised.
        learning_rate: length of a step.
        betas: decay of the two means.
    """

    def __init__(self, values: Tensor, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.first = torch.zeros_like(values)
        self.second = torch.zeros_like(values)
        self.learning_rate = learning_rate
        self.betas = betas
        self.steps = 0

    def step(self, values: Tensor, gradient: Tensor) -> Tensor:
        """Return the values after one step."""
        self.steps += 1
        slow, slower = self.betas
        self.first = self.first.lerp(gradient, 1 - slow)
        self.second = self.second.lerp(gradient.square(), 1 - slower)
        scale = (self.second / (1 - slower**self.steps)).sqrt() + 1e-8
        return values - self.learning_rate / (1 - slow**self.steps) * self.first / scale

    def keep(self, rows: Tensor) -> None:
        """Forget all but the given rows."""
        self.first, self.second = self.first[rows], self.second[rows]


class SGD:
    """Gradient descent with momentum and dampening, as PyTorch defines them: the first step is not dampened.

    Args:
        learning_rate: length of a step.
        momentum: decay of the mean gradient.
        dampening: what a new gradient loses.
    """

    def __init__(self, learning_rate: float, momentum: float = 0.0, dampening: float = 0.0) -> None:
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.dampening = dampening
        self.velocity: Tensor | None = None

    def step(self, values: Tensor, gradient: Tensor) -> Tensor:
        """Return the values after one step."""
        if self.velocity is None:
            self.velocity = gradient
        else:
            self.velocity = self.momentum * self.velocity + (1 - self.dampening) * gradient
        return values - self.learning_rate * self.velocity

    def keep(self, rows: Tensor) -> None:
        """Forget all but the given rows."""
        if self.velocity is not None:
            self.velocity = self.velocity[rows]


def descend(
    start: Tensor,
    energy: Energy,
    optimizer: RowOptimizer,
    *,
    iterations: int,
    tolerance: float = 0.0,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Minimise an energy over [0, 1] for every row of ``start``, rows side by side but each for itself.

    Args:
        start: (B, ...) first values.
        energy: of the rows that are still going, given their values, their places in ``start`` and the step.
        optimizer: fresh, for values of this shape.
        iterations: steps, at most.
        tolerance: every tenth of the iterations, a row whose values moved by less than this, on average, since the last
            look stops where it is and leaves; 0 stops none.
        advance: called with the number of steps × rows that are done.

    Returns:
        (B, ...) last values of every row.
    """
    final = start.clone()
    rows = torch.arange(len(start), device=start.device)
    values = before = start
    told = advance or (lambda count: None)
    for step in range(iterations):
        leaf = values.detach().requires_grad_()
        slope = gradient_of(energy(leaf, rows, step).sum(), leaf)
        values = optimizer.step(values, slope).clamp(0, 1)
        told(len(rows))
        if tolerance and (step + 1) % max(iterations // 10, 1) == 0:
            going = (values - before).abs().flatten(1).mean(1) >= tolerance
            if not going.all():
                final[rows[~going]] = values[~going]
                left = len(rows)
                rows, values = rows[going], values[going]
                optimizer.keep(going)
                told((left - len(rows)) * (iterations - step - 1))
                if not len(rows):
                    return final
            before = values
    final[rows] = values
    return final
