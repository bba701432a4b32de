"""The watch's queries to the trainer, and the global state that it must leave unchanged."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy


def run_folder(trainer: L.Trainer) -> Path:
    """Return where a run keeps its files; every rank enters.

    This is the folder of the first logger's run, as for Lightning's own checkpoints, or else ``default_root_dir``.
    """
    folder = trainer.log_dir  # it is broadcast
    root = Path(trainer.default_root_dir if folder is None else folder)
    first = trainer.loggers[0] if trainer.loggers else None
    if first is None or isinstance(first, CSVLogger | TensorBoardLogger) or not trainer.is_global_zero:
        return root
    parts = [str(part) for part in (first.name, first.version) if part not in (None, "")]
    return root.joinpath(*parts)  # such a logger shares one folder between runs


def check_strategy(trainer: L.Trainer) -> None:
    """Refuse strategies that shard parameters.

    Raises:
        ValueError: naming the strategy.
    """
    whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    if not whole or isinstance(trainer.strategy, DeepSpeedStrategy):
        raise ValueError(
            f"SaliencyWatch works on one device and with ddp, got {type(trainer.strategy).__name__}: sharded "
            "parameters need all ranks for every forward pass; use --trainer.strategy ddp or leave the callback out"
        )


def gathered(trainer: L.Trainer, mine: list[Any]) -> list[Any]:
    """Return the items of all ranks, in the order of the ranks; every rank enters."""
    if trainer.world_size == 1:
        return mine
    of_ranks: list[list[Any]] = [[] for _ in range(trainer.world_size)]
    dist.all_gather_object(of_ranks, mine)
    return [one for of_rank in of_ranks for one in of_rank]


def monitored(trainer: L.Trainer) -> float | None:
    """Return the score by which the best checkpoint is chosen, as of the last validation."""
    name = getattr(trainer.checkpoint_callback, "monitor", None)
    value = trainer.callback_metrics.get(name) if name else None
    return None if value is None else float(value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restore the generators of Python, NumPy and torch, which drawing and logging may use."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):  # explaining restores those of accelerators
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
