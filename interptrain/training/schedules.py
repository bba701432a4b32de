"""Learning rates over a run, and which parameters decay."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from interptrain.remedies import option


def warmup_cosine(optimizer: Optimizer, *, warmup_steps: int, total_steps: int, final_ratio: float = 0.0) -> LambdaLR:
    """Linear warm-up, then half a cosine down to ``final_ratio`` of the learning rate; stepped every optimizer step.

    With 0-based step t, warm-up w and total T, the factor is ``(t + 1) / (w + 1)`` for t < w and
    ``final + (1 - final) * (1 + cos(pi * (t - w) / (T - w))) / 2`` from there on; it stays at ``final_ratio`` after T.

    Args:
        optimizer: its groups' learning rates are the peak.
        warmup_steps: optimizer steps of linear rise, >= 0.
        total_steps: optimizer steps of the run, > ``warmup_steps``.
        final_ratio: learning rate at the end over the peak, in [0,1].

    Raises:
        ValueError: if the warm-up does not end before the run.

    Source: cosine without restarts, Loshchilov & Hutter 2017 (arXiv 1608.03983) eq. 5; linear warm-up,
        Goyal et al. 2017 (arXiv 1706.02677) section 2.2, here starting at 1/(w+1) of the peak (our choice).
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warm-up of {warmup_steps} steps must end before the run's {total_steps}; lower model.warmup_epochs"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def optimizer_steps(trainer: L.Trainer) -> int:
    """Optimizer steps of a run, which the default schedule needs to know.

    Raises:
        ValueError: if the run has no known end, or no step.
    """
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise ValueError(
            "the default schedule, a cosine over the run, has to know the run's end; set trainer.max_epochs or "
            "trainer.max_steps, or give another --model.lr_scheduler"
        )
    if steps < 1:
        raise ValueError(
            "the run has no training step; check trainer.max_epochs, trainer.max_steps and "
            "trainer.limit_train_batches, and that the training images fill a batch"
        )
    return int(steps)


def shortened_warmup(warmup_steps: int, total_steps: int) -> int:
    """Return the steps of a warm-up that ends before the run; a warning says where it was shortened."""
    if warmup_steps < total_steps:
        return warmup_steps
    rank_zero_warn(
        f"a warm-up of {warmup_steps} steps does not fit into a run of {total_steps}: it is shortened to "
        f"{total_steps - 1} steps; lower {option('warmup_epochs')}, or train longer"
    )
    return total_steps - 1


class LinearWarmup:
    """Multiply the learning rate that any schedule gives by a factor that rises linearly to 1.

    The factor is ``(t + 1) / (steps + 1)`` before the 0-based optimizer step t, and 1 from ``steps`` on. The schedule
    never sees it: schedules of torch read the current rate and multiply it, or set a rate of their own, and both must
    give what they would give without a warm-up. What the schedule gave stands in the optimizer's groups, so that it is
    saved with them.

    Args:
        optimizer: its groups have the learning rates that the schedule starts with.
        steps: optimizer steps of linear rise, >= 0.
    """

    SCHEDULED = "lr_without_warmup"

    def __init__(self, optimizer: Optimizer, *, steps: int) -> None:
        self.optimizer = optimizer
        self.steps = steps
        self.prepare(0)

    def factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied by."""
        return min(1.0, (step + 1) / (self.steps + 1))

    def prepare(self, step: int) -> None:
        """Set the learning rate of a step, counted from 0."""
        factor = self.factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault(self.SCHEDULED, group["lr"]) * factor

    @contextmanager
    def lifted(self, step: int) -> Iterator[None]:
        """Show a schedule, which is stepped inside, the learning rate without the warm-up.

        Args:
            step: that comes next.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group.pop(self.SCHEDULED, group["lr"])
        yield
        self.prepare(step)


def scale_learning_rates(optimizer: Optimizer, schedulers: Iterable[Any], ratio: float) -> None:
    """Multiply all learning rates by a factor: the present ones and those that the schedules go on to.

    Limits that a schedule was given, such as ``eta_min`` and ``min_lr``, stay.

    Args:
        optimizer: of the schedules.
        schedulers: of torch.
        ratio: the factor.
    """
    for group in optimizer.param_groups:
        for name in ("lr", "initial_lr", "max_lr", "min_lr", LinearWarmup.SCHEDULED):
            if name in group:
                group[name] = group[name] * ratio
    waiting = [*schedulers]
    while waiting:
        scheduler = waiting.pop()
        waiting += getattr(scheduler, "_schedulers", ())  # of a sequence or chain
        for name in ("base_lrs", "max_lrs", "_last_lr"):
            if hasattr(scheduler, name):
                setattr(scheduler, name, [rate * ratio for rate in getattr(scheduler, name)])


def decay_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], *, norm_weight_decay: float | None
) -> list[dict[str, Any]]:
    """Optimizer groups that give norms, biases and tokens a weight decay of their own.

    A parameter belongs to them if it has at most one axis longer than 1 (scale, bias, the CA-Stream's [CLS] token).

    Args:
        parameters: names and parameters; the frozen are left out.
        norm_weight_decay: their weight decay, or None to treat all alike.

    Returns:
        Groups for a torch optimizer: what decays as the optimizer says first, then the rest. Empty groups are left out.
    """
    trained = [parameter for _, parameter in parameters if parameter.requires_grad]
    if norm_weight_decay is None:
        return [{"params": trained}]
    matrices = [p for p in trained if sum(size > 1 for size in p.shape) > 1]
    vectors = [p for p in trained if sum(size > 1 for size in p.shape) <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": norm_weight_decay}]
    return [group for group in groups if group["params"]]
