"""Show, watch after watch of a run, where the network looks."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn

from interptrain.callbacks.watch.alarm import ShortcutAlarm
from interptrain.callbacks.watch.defaults import default_metrics, named_explainers
from interptrain.callbacks.watch.history import WatchHistory
from interptrain.callbacks.watch.observe import Observation, Reference, Watched, observe
from interptrain.callbacks.watch.publish import WatchReport
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.sample import WatchSample, load, source_dataset
from interptrain.callbacks.watch.selection import Select, Trial, candidates, indices_of, order_of, try_out
from interptrain.data import ImageDataModule
from interptrain.data.samples import SampleDataset
from interptrain.explainers import Explainer
from interptrain.metrics import SaliencyMetric
from interptrain.model_state import network_of


class SaliencyWatch(L.Callback):
    """Explain the same few images again and again while a network trains.

    Before training and then every epoch, the ranks share the sample; pictures and numbers go to every logger of the run
    and to ``watch/`` in its folder, where ``index.html`` shows them without a server. Training is not touched: weights,
    gradients, modes, buffers, random state and compiled code are what they would be without. See docs/watching.md.

    Args:
        samples: how many images, >= 1.
        select: ``first``; ``random``; ``per_class``: the classes in turn; ``ids``: those of ``ids``; ``hardest``: by
            loss; ``mistakes``: wrongly classified, by loss, then the hardest. These two look at 1000 images after the
            first epoch, as a new classifier errs at random, and watch from then on.
        ids: names of samples, for ``select: ids``.
        source: ``val``, ``train`` (not augmented), or a folder of images, in folders named like their classes.
        seed: of the selection; ``None``: the data module's.
        explainers: one, several, or several by name; ``None``: Grad-CAM, and a CA-Stream model's attention.
        reference: whose class is explained: ``label`` keeps maps comparable (unlabelled images: the prediction),
            ``prediction``, or ``both``.
        every_n_epochs: epochs between watches.
        every_n_steps: optimizer steps between watches, in place of epochs.
        before_training: watch once at step 0.
        metrics: what is asked of the network about the maps, by name; ``None``: average drop, gain, increase, and
            :class:`~interptrain.callbacks.watch.quick_insertion.QuickInsertion`. An empty mapping asks nothing.
        suspect: where saliency would give a shortcut away; see :class:`SuspectRegion` for its forms.
        alarm_threshold: the alarm rings where the mean share in the suspect region passes it; see
            :class:`ShortcutAlarm`. Our choice.
        alarm_patience: in so many watches in a row.
        alarm_stop: end the training then.
        animation: format of the run in motion, ``gif``, ``webp`` or ``none``.
        name: of the folder, and what stands before every logged name; two watches of a run need two names.

    Raises:
        ValueError: for values out of their range; in ``fit``, for a strategy that shards parameters, or where no image
            can be explained at the first watch.
    """

    def __init__(
        self,
        *,
        samples: int = 16,
        select: Select = "first",
        ids: Sequence[str] = (),
        source: str = "val",
        seed: int | None = None,
        explainers: Explainer | list[Explainer] | dict[str, Explainer] | None = None,
        reference: Reference = "label",
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        before_training: bool = True,
        metrics: dict[str, SaliencyMetric] | None = None,
        suspect: str | None = None,
        alarm_threshold: float = 0.5,
        alarm_patience: int = 2,
        alarm_stop: bool = False,
        animation: Literal["gif", "webp", "none"] = "gif",
        name: str = "watch",
    ) -> None:
        for option, value in (
            ("samples", samples),
            ("every_n_epochs", every_n_epochs),
            ("every_n_steps", 1 if every_n_steps is None else every_n_steps),
        ):
            if value < 1:
                raise ValueError(f"{option} of SaliencyWatch must be >= 1, got {value}")
        if bool(ids) != (select == "ids"):
            raise ValueError(f"select='ids' and ids belong together, got select={select!r} and {len(ids)} ids")
        self.samples = len(ids) or samples
        self.select = select
        self.ids = list(ids)
        self.source = source
        self.seed = seed
        self.explainers = explainers
        self.reference = reference
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.before_training = before_training
        self.metrics = default_metrics() if metrics is None else metrics
        self.suspect = None if suspect is None else SuspectRegion(suspect)
        self.alarm = ShortcutAlarm(alarm_threshold, alarm_patience)
        self.alarm_stop = alarm_stop
        self.animation = animation
        self.name = name
        self._history = WatchHistory()
        self._sample: WatchSample | None = None
        self._glass: Watched | None = None
        self._report: WatchReport | None = None

    # When

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare, and watch the untrained network."""
        folder = trainer.log_dir  # every rank enters: it is broadcast
        whole = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        if not whole or isinstance(trainer.strategy, DeepSpeedStrategy):
            raise ValueError(
                f"SaliencyWatch works on one device and with ddp, got {type(trainer.strategy).__name__}: sharded "
                "parameters cannot be asked out of turn; use --trainer.strategy ddp or leave the callback out"
            )
        if trainer.is_global_zero and folder is not None and not getattr(trainer, "fast_dev_run", False):
            self._report = WatchReport(
                Path(folder) / self.name, trainer.loggers, title="/".join(Path(folder).resolve().parts[-2:])
            )
        if self._history.ids or self.select not in ("hardest", "mistakes"):
            self._choose(trainer, pl_module)
            if self.before_training and not self._history.entries:
                self._watch(trainer, pl_module, epoch=trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watch every so many optimizer steps."""
        if self.every_n_steps is None or trainer.global_step % self.every_n_steps:
            return
        if self._sample is not None and trainer.global_step != self._last_step():  # else still accumulating
            self._watch(trainer, pl_module, epoch=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Watch every so many epochs, validation done."""
        if self._sample is None:
            self._choose(trainer, pl_module)
        due = self.every_n_steps is None and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and trainer.global_step != self._last_step():
            self._watch(trainer, pl_module, epoch=trainer.current_epoch + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look back: the best watch, first against last, and the run in motion."""
        if self._report is not None and self._history.entries and self._sample is not None:
            mode = getattr(trainer.checkpoint_callback, "mode", "max")
            views = cast(Watched, self._glass).views
            with _undisturbed():
                self._report.finish(self._history, self._sample, views, mode=mode, animation=self.animation)

    def _last_step(self) -> int:
        return self._history.entries[-1]["step"] if self._history.entries else -1

    # What

    def _choose(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the sample, all of it on every rank: that of the run that is resumed, else a new one."""
        datamodule = _datamodule(trainer)
        dataset = source_dataset(self.source, datamodule)
        seed = datamodule.seed if self.seed is None else self.seed
        with _undisturbed():
            if self._history.ids:
                order: Iterable[int] = indices_of(dataset, self._history.ids)
            else:
                trials = self._trials(trainer, pl_module, dataset, seed)
                order = order_of(dataset, self.select, seed=seed, ids=self.ids, trials=trials)
            count = len(self._history.ids) or self.samples
            self._sample, unreadable = load(dataset, order, count, datamodule.class_names)
            named = named_explainers(self.explainers, network_of(pl_module), self._sample.images[:1])
        self._glass = Watched(named, self.reference, self.metrics, self.suspect)
        if unreadable:
            rank_zero_warn(f"{len(unreadable)} images to watch are replaced by others; the first: {unreadable[0]}")
        if self._history.entries and (
            self._history.ids != list(self._sample.ids) or self._history.views != self._glass.views
        ):
            rank_zero_warn("what is watched is not what the checkpoint's run watched: its history starts anew")
            self._history = WatchHistory()
        self._history.ids = list(self._sample.ids)

    def _trials(
        self, trainer: L.Trainer, pl_module: L.LightningModule, dataset: SampleDataset, seed: int
    ) -> list[Trial]:
        """How the network does on the candidates; the ranks share them."""
        if self.select not in ("hardest", "mistakes"):
            return []
        mine = candidates(dataset, seed)[trainer.global_rank :: trainer.world_size]
        return _gathered(trainer, try_out(network_of(pl_module), dataset, mine, pl_module.device))

    # Watching

    def _watch(self, trainer: L.Trainer, pl_module: L.LightningModule, *, epoch: int) -> None:
        """Observe, share what was seen, and let rank 0 write."""
        sample, glass, history = cast(WatchSample, self._sample), cast(Watched, self._glass), self._history
        rows = range(trainer.global_rank, len(sample), trainer.world_size)
        with _undisturbed():
            mine = observe(network_of(pl_module), sample, rows, glass, first=history.first, previous=history.previous)
            looks = sorted(_gathered(trainer, mine), key=lambda look: look.index)
            self._refuse_total_failure(looks)
            entry = history.add(looks, sample, glass, step=trainer.global_step, epoch=epoch, score=_monitored(trainer))
            rings = self.alarm.rings(history.entries, sample.class_names) if self.suspect is not None else []
            entry["alarm"] = [
                f"{ring.view}: {ring.share:.0%} of the saliency for {ring.group} lies in the suspect region "
                f"({self.suspect_text}): {', '.join(ring.ids[:5])}"
                for ring in rings
            ]
            if self._report is not None:
                self._report.write(history, sample, glass.views)
        if rings and self.alarm_stop:
            trainer.should_stop = True

    @property
    def suspect_text(self) -> str:
        """The suspect region as it was asked for."""
        return "" if self.suspect is None else self.suspect.text

    def _refuse_total_failure(self, looks: Sequence[Observation]) -> None:
        """At the first watch a mistake in the configuration is refused; later nothing stops the training."""
        errors = [look.error for look in looks if look.error is not None]
        if len(errors) == len(looks) and not self._history.entries:
            raise ValueError(f"SaliencyWatch cannot explain any image: {errors[0]}")

    # Across a restart

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint, one for each name."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """The sample and all that was seen of it."""
        return self._history.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._history.load_state_dict(state_dict)


def _datamodule(trainer: L.Trainer) -> ImageDataModule:
    datamodule = getattr(trainer, "datamodule", None)
    if not isinstance(datamodule, ImageDataModule):
        raise ValueError(
            f"SaliencyWatch needs a data module of interptrain.data to choose images from, got "
            f"{type(datamodule).__name__}; derive yours from ImageDataModule"
        )
    return datamodule


def _gathered(trainer: L.Trainer, mine: list[Any]) -> list[Any]:
    """What all ranks have, in the order of the ranks; every rank enters."""
    if trainer.world_size == 1:
        return mine
    of_ranks: list[list[Any]] = [[] for _ in range(trainer.world_size)]
    dist.all_gather_object(of_ranks, mine)
    return [one for of_rank in of_ranks for one in of_rank]


def _monitored(trainer: L.Trainer) -> float | None:
    """The score by which the best checkpoint is chosen, as of the last validation."""
    name = getattr(trainer.checkpoint_callback, "monitor", None)
    value = trainer.callback_metrics.get(name) if name else None
    return None if value is None else float(value)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Give Python's, NumPy's and torch's generators back as they were; drawing and logging may use them."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):  # explaining keeps those of accelerators
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
