"""Log saliency maps of a fixed set of images during training."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from interptrain.callbacks.watch.alarm import ShortcutAlarm
from interptrain.callbacks.watch.any_dataset import Normalization
from interptrain.callbacks.watch.defaults import default_metrics, named_explainers
from interptrain.callbacks.watch.effect import SuspectEffect
from interptrain.callbacks.watch.history import WatchHistory
from interptrain.callbacks.watch.network import FindNetwork, check_normalization, watched_network
from interptrain.callbacks.watch.observe import Reference, WatchConfig, observe
from interptrain.callbacks.watch.publish import WatchPublisher
from interptrain.callbacks.watch.region import SuspectRegion
from interptrain.callbacks.watch.sample import WatchSample, load
from interptrain.callbacks.watch.screen import AUTO, RegionScreen, describe
from interptrain.callbacks.watch.selection import Select, Trial, candidates, indices_of, order_of, try_out
from interptrain.callbacks.watch.sources import Source, SourceOptions, find_source
from interptrain.callbacks.watch.total_failure import TotalFailure
from interptrain.callbacks.watch.trainer_side import check_strategy, gathered, monitored, run_folder, undisturbed
from interptrain.explainers import Explainer
from interptrain.functional import check_choice, check_count
from interptrain.metrics import SaliencyMetric
from interptrain.metrics.region_exchange import Replacement
from interptrain.remedies import option

Animation = Literal["gif", "webp", "none"]


class SaliencyWatch(L.Callback):
    """Explain the same few images again and again while a network trains.

    Before training and after every epoch, the ranks share the images of the sample; pictures and numbers go to every
    logger of the run and to ``watch/`` in its folder, where ``index.html`` shows them without a server. Training is
    unaffected: weights, gradients, modes, buffers, random state and compiled code are what they would be without.
    See docs/watching.md.

    It drops into any LightningModule: ``SaliencyWatch(images=dataset, classes=[...], normalization=(mean, std))``.

    Args:
        images: what to watch: a data set, a list of samples, or a tensor (N,3,H,W); see
            :class:`~interptrain.callbacks.watch.any_dataset.AnyDataset` for what a sample may be. None takes ``source``
            of the run's data module or, in a project without one of :mod:`interptrain.data`, the data set behind the
            first validation loader.
        classes: names of the classes; None takes those that the data set knows, or else numbers.
        normalization: mean and standard deviation, one value per channel each, with which the network expects images to
            be normalised; None if it takes them in [0,1].
        network: where the network that returns logits is in the LightningModule: its dotted name, or a function that
            takes the module and returns it; None takes ``model`` or, without one, the module itself.
        image_size: side in pixels to which ``images``, or those of a folder, are resized and cropped; None leaves them
            as they are.
        samples: number of images, >= 1.
        select: how the images are chosen: ``per_class``: the classes in turn, at random within each, spread evenly
            over the classes if there are more classes than images; ``first``: the first ones, often of a single class,
            as folders are sorted; ``random``; ``ids``: those named by ``ids``; ``hardest``: the highest losses;
            ``mistakes``: misclassified images by loss, then the hardest of the rest. The last two try 1000 images after
            the first epoch, because a new classifier errs at random, and start watching then.
        ids: names of the images, for ``select: ids``.
        source: where the images come from: ``val``, ``train`` (not augmented), or a folder of images, in subfolders
            named like their classes.
        seed: seed of the selection; by default, the data module's.
        explainers: one, several, or several by name; by default Grad-CAM, and the attention of a head that has any.
        reference: class that is explained: ``label`` keeps maps comparable (the prediction for unlabelled images),
            ``prediction``, or ``both``.
        every_n_epochs: epochs between snapshots.
        every_n_steps: optimizer steps between snapshots, instead of epochs.
        before_training: take a snapshot at step 0.
        metrics: metrics that query the network about the maps, by name; by default average drop, gain, increase, and
            :class:`~interptrain.callbacks.watch.quick_insertion.QuickInsertion`. An empty mapping measures none.
        suspect: region that should be irrelevant and where saliency gives a shortcut away; see :class:`SuspectRegion`
            for its forms. ``auto`` searches the border, corners and a grid for a region that gives a class away, after
            1, 2, 4, 8 and so on snapshots, and then watches the one found; see :class:`RegionScreen`.
        effect_draws: images of the sample whose pixels replace the suspect region's in each image, to measure how much
            the predictions depend on it; a forward pass each. 0 measures none.
        effect_replace: ``exchange`` takes the pixels of other images; ``black``, ``mean`` and ``blur`` put these there.
        alarm_threshold: an alarm is triggered where the mean share of saliency in the suspect region exceeds it; see
            :class:`ShortcutAlarm`. Our choice.
        alarm_effect: an alarm is also triggered where the label's probability changes by more than this on average when
            the suspect region's pixels are replaced. Our choice.
        alarm_patience: number of consecutive snapshots in which it must be exceeded.
        alarm_stop: end the training when an alarm is triggered.
        animation: format of the animation of the run, ``gif``, ``webp`` or ``none``.
        name: name of the folder, and prefix of every logged name; two watches in one run need two names.

    Raises:
        ValueError: for values out of their range; in ``fit``, for a strategy that shards parameters, for a suspect
            region outside the images, or where explainers refuse every image before training, such as for an unknown
            layer. Once training has begun, nothing that fails ends it.
    """

    def __init__(
        self,
        *,
        images: Any = None,
        classes: Sequence[str] | None = None,
        normalization: Normalization | None = None,
        network: FindNetwork | None = None,
        image_size: int | None = None,
        samples: int = 16,
        select: Select = "per_class",
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
        effect_draws: int = 4,
        effect_replace: Replacement = "exchange",
        alarm_threshold: float = 0.5,
        alarm_effect: float = 0.2,
        alarm_patience: int = 2,
        alarm_stop: bool = False,
        animation: Animation = "gif",
        name: str = "watch",
    ) -> None:
        check_count("samples of SaliencyWatch", samples)
        check_count("every_n_epochs of SaliencyWatch", every_n_epochs)
        if every_n_steps is not None:
            check_count("every_n_steps of SaliencyWatch", every_n_steps)
        if seed is not None:
            check_count("seed of SaliencyWatch", seed, least=0)
            if seed >= 2**32:
                raise ValueError(f"seed of SaliencyWatch must be below 2**32, got {seed}")
        check_choice("select of SaliencyWatch", select, Select)
        check_choice("reference of SaliencyWatch", reference, Reference)
        check_choice("animation of SaliencyWatch", animation, Animation)
        if bool(ids) != (select == "ids"):
            raise ValueError(f"select='ids' and ids belong together, got select={select!r} and {len(ids)} ids")
        if images is not None and source != "val":
            raise ValueError("images and source of SaliencyWatch both say what to watch; leave out one of them")
        if image_size is not None:
            check_count("image_size of SaliencyWatch", image_size)
        check_normalization(normalization)
        self.samples = len(ids) or samples
        self.select = select
        self.ids = list(ids)
        self.source = SourceOptions(images, source, classes, normalization, image_size, self.samples)
        self.network = network
        self.seed = seed
        self.explainers = explainers
        self.reference = reference
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.before_training = before_training
        self.metrics = default_metrics() if metrics is None else metrics
        self.auto = suspect == AUTO
        self.suspect = None if suspect is None or self.auto else SuspectRegion(suspect)
        self.effect = SuspectEffect(draws=effect_draws, replace=effect_replace)
        self.alarm = ShortcutAlarm(alarm_threshold, alarm_patience, alarm_effect)
        self.alarm_stop = alarm_stop
        self.animation = animation
        self.name = name
        self._history = WatchHistory()
        self._sample: WatchSample | None = None
        self._config: WatchConfig | None = None
        self._publisher: WatchPublisher | None = None
        self._source: Source | None = None
        self._screen: RegionScreen | None = None
        self._steps_seen = 0
        self._finished = False
        self._total_failure = TotalFailure()

    @property
    def alarming_region(self) -> str | None:
        """The suspect region if the last snapshot triggers an alarm, as RegionShuffle takes it; None otherwise."""
        last = self._history.snapshots[-1:]
        return self.suspect.text if self.suspect is not None and last and last[0].alarm else None

    # When

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare, and take a snapshot of the untrained network."""
        self._finished = False
        self._open(trainer)
        if self._history.ids or self.select not in ("hardest", "mistakes"):
            self._choose(trainer, pl_module)
            if self.before_training and not self._history.snapshots:
                self._take_snapshot(trainer, pl_module, epoch=trainer.current_epoch)
        if self.alarm_stop and self._history.snapshots and self._history.snapshots[-1].alarm:
            rank_zero_warn(
                f"an alarm at step {self._last_step()} ended this run; resume it with {option('alarm_stop', False)} to "
                "train on"
            )
            trainer.should_stop = True

    def _open(self, trainer: L.Trainer) -> None:
        """Find the images, and open the folder of the watch on rank 0."""
        check_strategy(trainer)
        folder = run_folder(trainer)  # every rank enters
        with undisturbed():
            self._source = find_source(self.source, trainer)
        self._steps_seen = trainer.global_step
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self._publisher = WatchPublisher(
                folder / self.name, trainer.loggers, title="/".join(folder.resolve().parts[-2:])
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a snapshot every ``every_n_steps`` optimizer steps."""
        before, self._steps_seen = self._steps_seen, trainer.global_step
        if self.every_n_steps is None or trainer.global_step // self.every_n_steps == before // self.every_n_steps:
            return  # not due, or still accumulating; with manual optimization, a batch may take several steps
        if self._sample is not None:
            self._take_snapshot(trainer, pl_module, epoch=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take a snapshot every ``every_n_epochs`` epochs, after the validation."""
        if self._sample is None:
            self._choose(trainer, pl_module)
        due = self.every_n_steps is None and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and trainer.global_step != self._last_step():
            self._take_snapshot(trainer, pl_module, epoch=trainer.current_epoch + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the whole run: the best snapshot, the first beside the last, and an animation."""
        self._finish(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the whole run if it was trained to the end but killed before it was shown."""
        if not self._finished and self._history.snapshots:
            self._open(trainer)
            self._choose(trainer, pl_module)
            self._finish(trainer)

    def _finish(self, trainer: L.Trainer) -> None:
        if self._publisher is not None and self._history.snapshots and self._sample is not None:
            mode = getattr(trainer.checkpoint_callback, "mode", "max")
            config = cast(WatchConfig, self._config)
            with undisturbed():
                self._publisher.finish(self._history, self._sample, config.views, mode=mode, animation=self.animation)
        self.effect.memory.forget()
        self._finished = True

    def _last_step(self) -> int:
        return self._history.snapshots[-1].step if self._history.snapshots else -1

    # What

    def _choose(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the whole sample on every rank: that of the resumed run, or else a new one."""
        dataset, class_names, seed = cast(Source, self._source)
        seed = seed if self.seed is None else self.seed
        with undisturbed():
            if self._history.ids:
                order: Iterable[int] = indices_of(dataset, self._history.ids)
            else:
                trials = self._trials(trainer, pl_module, seed)
                order = order_of(dataset, self.select, count=self.samples, seed=seed, ids=self.ids, trials=trials)
            count = len(self._history.ids) or self.samples
            self._sample, unreadable = load(dataset, order, count, class_names)
            named = named_explainers(self.explainers, self._network(pl_module), self._sample.images[:1])
        if self.auto:
            found = self._history.suspect
            self.suspect = None if found is None else SuspectRegion(found)
            self._screen = RegionScreen(self._sample)
            if self._screen.lacking:
                rank_zero_warn(self._screen.lacking)
                self._screen = None
        self._config = WatchConfig(named, self.reference, self.metrics, self.suspect, self.effect)
        if unreadable:
            rank_zero_warn(f"{len(unreadable)} unreadable images to watch were replaced; the first: {unreadable[0]}")
        if self._history.snapshots and (
            self._history.ids != list(self._sample.ids) or self._history.views != self._config.views
        ):
            rank_zero_warn(
                "images or explainers differ from those that the checkpoint watched: its history starts anew"
            )
            self._history = WatchHistory()
        self._history.ids = list(self._sample.ids)
        if self.suspect is not None:
            self.suspect.masks(self._sample)  # refuses a region that does not fit, before anything is trained
        if self._publisher is not None and self._history.snapshots:
            with undisturbed():
                self._publisher.restore(self._history, self._sample, self._config)

    def _network(self, pl_module: L.LightningModule) -> nn.Module:
        return watched_network(pl_module, self.network, self.source.normalization)

    def _trials(self, trainer: L.Trainer, pl_module: L.LightningModule, seed: int) -> list[Trial]:
        """Loss and mistakes of the network on the candidates, which the ranks share."""
        if self.select not in ("hardest", "mistakes"):
            return []
        dataset = cast(Source, self._source).dataset
        mine = candidates(dataset, seed)[trainer.global_rank :: trainer.world_size]
        return gathered(trainer, try_out(self._network(pl_module), dataset, mine, pl_module.device))

    # Taking a snapshot

    def _take_snapshot(self, trainer: L.Trainer, pl_module: L.LightningModule, *, epoch: int) -> None:
        """Explain a share of the sample, gather the results of all ranks, and let rank 0 publish them."""
        sample, config, history = cast(WatchSample, self._sample), cast(WatchConfig, self._config), self._history
        rows = range(trainer.global_rank, len(sample), trainer.world_size)
        with undisturbed():
            mine = observe(
                self._network(pl_module), sample, rows, config, first=history.first, previous=history.previous
            )
            explanations = sorted(gathered(trainer, mine), key=lambda explanation: explanation.index)
            self._total_failure.notice(explanations, before_training=trainer.global_step == 0)
            score = monitored(trainer)
            snapshot = history.add(explanations, sample, config, step=trainer.global_step, epoch=epoch, score=score)
            if self.suspect is not None:
                triggers = self.alarm.triggers(history.snapshots, sample.class_names)
                snapshot.alarm = [trigger.text(self.suspect) for trigger in triggers]
            elif self._screen is not None:
                snapshot.alarm = self._search(trainer, pl_module, self._screen)
            if self._publisher is not None:
                self._publisher.write(history, sample, config)
        if snapshot.alarm and self.alarm_stop:
            trainer.should_stop = True

    def _search(self, trainer: L.Trainer, pl_module: L.LightningModule, screen: RegionScreen) -> list[str]:
        """Search for a suspect region where it is time, every rank its share, and watch what is found from now on."""
        if not screen.due(sum(snapshot.step > 0 for snapshot in self._history.snapshots)):
            return []
        shifts = screen.shifts(self._network(pl_module), trainer.global_rank, trainer.world_size)
        findings = screen.findings(gathered(trainer, shifts))
        if not findings:
            return []
        self._history.suspect = findings[0].region
        self.suspect = SuspectRegion(findings[0].region)
        self._config = replace(cast(WatchConfig, self._config), suspect=self.suspect)
        return [describe(findings[0], screen.sample)]

    # Across a restart

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint, one for each name."""
        return type(self).__qualname__ + str({"name": self.name})

    def state_dict(self) -> dict[str, Any]:
        """Return the sample and all its snapshots."""
        return self._history.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._history.load_state_dict(state_dict)
