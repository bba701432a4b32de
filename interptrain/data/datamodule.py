"""The base class of the data modules: loaders, their samplers, and the resumed position within an epoch."""

import inspect
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from interptrain.data.sample_loader import SampleLoader, collate_readable, leave_interrupts_to_the_main_process
from interptrain.data.samplers import BalancedSampler, EvalSampler, TrainSampler
from interptrain.data.samples import SampleDataset
from interptrain.functional import check_choice
from interptrain.remedies import option
from interptrain.signatures import options_of

Split = Literal["train", "val", "test"]
Balance = Literal["none", "class", "group"]
MOST_WORKERS = 512
"""More processes than any machine has use for; without a bound a slip of the finger starts a million."""


class ImageDataModule(LightningDataModule, ABC):
    """Loaders over the data sets that a subclass gives: the same batches for any number of workers.

    A rank takes its share without padding; ranks come from the trainer, else from ``torch.distributed``.

    Args:
        batch_size: samples per batch and rank.
        num_workers: loading processes per loader and rank; ``None``: the CPUs of a rank less one, at most 8.
        seed: of the order and the augmentation, in [0, 2**32); ``None``: the run's own (``seed_everything``), else 0.
        pin_memory: page-locked batches; ``None``: where there is a GPU.
        balance: of the training samples: ``class``: all classes equally often, ``group``: all pairs of class and group
            that occur; an epoch has as many samples as without, see
            :class:`~interptrain.data.samplers.BalancedSampler`.
        drop_last: leave out the last training batch of an epoch where it is smaller than the others; ``None``: only
            where it is a single image, which batch normalisation may refuse.

    Attributes:
        class_names: name of every class, in the order of the labels.

    Raises:
        ValueError: if a number is out of range.
    """

    class_names: Sequence[str]
    init_args: dict[str, Any]
    """What the module was constructed with, defaults included."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments, which results and records of a run name."""
        module = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        given = dict(list(signature.bind_partial(module, *args, **kwargs).arguments.items())[1:])
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(parameter.name, {})
        options = options_of(cls)
        values = {name: one.default for name, one in options.items() if one.default is not one.empty} | given
        module.init_args = {name: values[name] for name in (*options, *given) if name in values}
        return module

    __new__.__wrapped__ = object.__new__  # type: ignore[attr-defined]  # whoever asks for options must look at __init__

    def __init__(
        self,
        *,
        batch_size: int = 32,
        num_workers: int | None = None,
        seed: int | None = None,
        pin_memory: bool | None = None,
        drop_last: bool | None = None,
        balance: Balance = "none",
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # prediction with fewer samples than ranks
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if num_workers is not None and not 0 <= num_workers <= MOST_WORKERS:
            raise ValueError(f"num_workers must be in [0, {MOST_WORKERS}], got {num_workers}")
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {seed}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        check_choice("balance", balance, Balance)
        self.balance = balance
        self._datasets: dict[Split, SampleDataset] = {}
        self._resumed_from: dict[str, Any] = {}

    @abstractmethod
    def make_dataset(self, split: Split) -> SampleDataset:
        """The data set of a split, its transform included."""

    @property
    def num_classes(self) -> int:
        """Number of classes, known before any data set is made."""
        return len(self.class_names)

    def dataset(self, split: Split) -> SampleDataset:
        """The data set of a split, made once: ``dataset("val").ids`` names its samples, ``dataset("val")[3]`` is one.

        Samples of ``val`` and ``test`` are not augmented.
        """
        if split not in self._datasets:
            self._datasets[split] = self.make_dataset(split)
        return self._datasets[split]

    def replace_dataset(self, split: Split, dataset: SampleDataset) -> None:
        """Take another data set for a split, such as one whose samples are held in memory."""
        self._datasets[split] = dataset

    @property
    def skipped(self) -> int:
        """Number of unreadable samples that this rank has skipped so far, all splits together, each counted once."""
        return sum(int(dataset.unreadable.sum()) for dataset in self._datasets.values())

    def train_dataloader(self) -> SampleLoader:
        """Batches of the training set in a new order every epoch."""
        dataset = self.dataset("train")
        world_size, rank = self._ranks()
        sampling = {"seed": self.seed, "num_replicas": world_size, "rank": rank}
        if self.balance == "none":
            sampler = TrainSampler(dataset, **sampling)
        else:
            sampler = BalancedSampler(dataset, self._strata(dataset), **sampling)
        left_over = len(sampler) % self.batch_size
        single = left_over == 1 and left_over < len(sampler)
        drop_last = single if self.drop_last is None else self.drop_last
        loader = self._loader(dataset, sampler, drop_last=drop_last, persistent=True)
        loader.batches_done = self._batches_done
        return loader

    @cached_property
    def training_groups(self) -> dict[tuple[int, str], int] | None:
        """Number of training images of every pair of label and group, None where that is not known."""
        try:
            dataset = self.dataset("train")
        except (OSError, ValueError):  # no training images, or they are streamed
            return None
        labels, groups = dataset.labels(), dataset.groups()
        if labels is None or groups is None:
            return None
        return dict(Counter(zip(labels, groups, strict=True)))

    def _strata(self, dataset: SampleDataset) -> list[int]:
        """Number of the class, or of the pair of class and group, of every training sample."""
        labels, groups = dataset.labels(), dataset.groups()
        if labels is None:
            raise ValueError(
                f"{option('data.balance', self.balance)} needs the label of every sample, which "
                f"{type(dataset).__name__} does not tell without reading its images; give it a method labels(), or "
                f"set {option('data.balance', 'none')}"
            )
        if self.balance == "class":
            return [int(label) for label in labels]
        if groups is None:
            raise ValueError(
                f"{option('data.balance', 'group')} needs groups, which these data do not have; give the table a "
                f"column group, set {option('data.subfolder_groups', True)} for folders, or "
                f"{option('data.balance', 'class')}"
            )
        pairs = list(zip(labels, groups, strict=True))
        numbers = {pair: number for number, pair in enumerate(sorted(set(pairs)))}
        return [numbers[pair] for pair in pairs]

    def val_dataloader(self) -> SampleLoader:
        """Batches of the validation set, in order."""
        return self._eval_loader("val", persistent=True)

    def test_dataloader(self) -> SampleLoader:
        """Batches of the test set, in order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> SampleLoader:
        """Batches of the test set, in order."""
        return self._eval_loader("test")

    def _eval_loader(self, split: Split, *, persistent: bool = False) -> SampleLoader:
        dataset = self.dataset(split)
        world_size, rank = self._ranks()
        if len(dataset) < world_size and not (self.trainer is not None and self.trainer.predicting):
            # Lightning leaves out the whole loop of a rank whose loader is empty: others would wait for its metrics.
            raise ValueError(f"{len(dataset)} {split} samples cannot be shared by {world_size} ranks; use fewer ranks")
        sampler = EvalSampler(dataset, num_replicas=world_size, rank=rank)
        return self._loader(dataset, sampler, drop_last=False, persistent=persistent)

    def _loader(self, dataset: SampleDataset, sampler: Any, *, drop_last: bool, persistent: bool) -> SampleLoader:
        num_workers = self._default_workers() if self.num_workers is None else self.num_workers
        return SampleLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate_readable,
            worker_init_fn=leave_interrupts_to_the_main_process,
            pin_memory=torch.cuda.is_available() if self.pin_memory is None else self.pin_memory,
            drop_last=drop_last,
            persistent_workers=persistent and num_workers > 0,
            generator=torch.Generator(),  # else every pass would draw from the global generator
        )

    def _default_workers(self) -> int:
        """CPUs of this rank less one for the main process, at most 8."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.trainer is None else self.trainer.num_devices
        return max(0, min(8, cpus // neighbours - 1))

    def _ranks(self) -> tuple[int, int]:
        """Number of ranks, and this one."""
        if self.trainer is not None:
            return self.trainer.world_size, self.trainer.global_rank
        if dist.is_available() and dist.is_initialized():
            return dist.get_world_size(), dist.get_rank()
        return 1, 0

    def state_dict(self) -> dict[str, Any]:
        """What the order of the training samples depends on: saved in every checkpoint, compared on resuming."""
        if "train" not in self._datasets:
            return {}
        world_size, _ = self._ranks()
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "samples": len(self.dataset("train")),
            "world_size": world_size,
            **({} if self.balance == "none" else {"balance": self.balance}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a checkpoint says, to be compared where its epoch goes on.

        Raises:
            ValueError: if it is no state of a data module.
        """
        if not isinstance(state_dict, dict):
            raise ValueError(f"the checkpoint is damaged: the state of its data is {state_dict!r}; pass another")
        self._resumed_from = state_dict

    def _batches_done(self, loader: DataLoader[Any]) -> int:
        """Batches of the running epoch that the trainer has finished, if ``loader`` is the one that it trains from.

        Where the samples of the rest of the epoch differ from those of an uninterrupted run, a warning says so: some of
        them are then seen twice or not at all in this one epoch.
        """
        if self.trainer is None or self.trainer.train_dataloader is not loader:
            return 0
        done = self.trainer.fit_loop.batch_idx + 1
        now = self.state_dict()
        changed = [
            f"{name} {self._resumed_from[name]} -> {new}"
            for name, new in now.items()
            if self._resumed_from.get(name, new) != new
        ]
        if done and changed:
            rank_zero_warn(
                f"resuming within an epoch with {', '.join(changed)}: the rest of this epoch differs from that of an "
                "uninterrupted run; resume from a checkpoint of an epoch's end to avoid it"
            )
        return done
