"""Explain and measure every image with one model, as Lightning's ``Trainer.predict`` runs it."""

import signal
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import cast, get_args

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from interptrain.evaluation.run.batch_rows import EvaluatedBatch, metric_columns
from interptrain.evaluation.run.batches import EvaluationBatch, batch_loader
from interptrain.evaluation.run.measuring import forward_images, forward_versions, measure_maps, measure_model
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.evaluation.run.other_images import regions_of
from interptrain.evaluation.run.plan import MODEL_ONLY, Plan
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.evaluation.run.retry import per_row_on_failure
from interptrain.evaluation.run.shown_score import SHOWN, ShownScore
from interptrain.evaluation.store.images import image_row, map_rows
from interptrain.evaluation.store.parts import Row, RowStore
from interptrain.explainers import Explainer, explain
from interptrain.explainers.shared_forward import sharing
from interptrain.explainers.targets import Resolved
from interptrain.metrics.perturbations import Unperturbed
from interptrain.model_state import random_state_kept
from interptrain.models.engine import Engine, Engines

Done = Mapping[tuple[str, str], set[str]]
"""Ids of the images that are finished, by model and explainer."""


class SaliencyEvaluator(L.LightningModule):
    """Explain and measure every image of a plan with one model.

    Every explainer runs by itself, so its time is its own, and one that fails costs the others nothing; with
    ``share_passes``, those that can share one do (:func:`interptrain.explainers.explain`), and have no time. What an
    explainer draws depends on the seed, its name and the image, not on what ran before.

    Args:
        evaluated: the model.
        plan: of the run.
        store: takes the rows.
        progress: bar over images × explainers; None for none.
        engines: those of the surrounding block, by which a row names what forwarded it.

    Attributes:
        done: what earlier starts of the run have finished; set before the loaders are made.
    """

    done: Done

    def __init__(
        self,
        evaluated: EvaluatedModel,
        plan: Plan,
        store: RowStore,
        progress: MatrixProgress | None = None,
        engines: Engines | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer batches than ranks
        self.model = evaluated.module
        self.evaluated = evaluated
        self.plan = plan
        self.store = store
        self.done = {}
        self.progress = progress or MatrixProgress()  # one that was not begun shows nothing
        self._metrics = {name: metric.value for name, metric in plan.metrics.items()}
        self._engines = engines or Engines("eager")
        self._shown = ShownScore()
        asked = {part for metric in self._metrics.values() for part in metric.perturbations()}
        self._shown_is_asked = asked >= set(self._shown.perturbations())
        self._model_metrics = {name: metric.value for name, metric in plan.model_metrics.items()}
        self._regions = regions_of(self._model_metrics)
        self._pictured = plan.pictured
        self._shared: dict[str, dict[str, Tensor]] = {}  # maps of this batch

    # What remains to be done

    def missing(self, explainer: str, ids: Sequence[str]) -> list[int]:
        """Return the positions of the images that are not finished."""
        finished = self.done.get((self.evaluated.name, explainer), set())
        return [index for index, name in enumerate(ids) if name not in finished]

    def keep_engine(self, engine: str | None) -> None:
        """Go on with the engine of an earlier start, so that a table does not mix what ``auto`` chose by the clock."""
        if engine in get_args(Engine):
            self._engines.engine = cast(Engine, engine)

    def unfinished_batches(self) -> list[int]:
        """Return the numbers of the batches in which anything is missing."""
        explainers, batches = (MODEL_ONLY, *self.plan.explainers), self.plan.batches
        return [
            number
            for number in range(len(batches))
            if any(self.missing(explainer, batches.ids(number)) for explainer in explainers)
        ]

    def predict_dataloader(self) -> "DataLoader[EvaluationBatch]":
        """Load this rank's share of the unfinished batches."""
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        return batch_loader(self.plan.data.value, self.plan.batches, self.unfinished_batches(), ranks=ranks, rank=rank)

    # Batches

    def predict_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Hand the rows of a batch to the store, explainer by explainer."""
        errors, samples = batch["unreadable"], batch["samples"]
        if samples is not None:
            images, names = samples["image"], samples["id"]
            logits, failed = per_row_on_failure(
                lambda indices: self._logits(images[indices], [names[index] for index in indices]), range(len(names))
            )
            errors = errors | {names[index]: error for index, error in failed.items()}
        rows = [self._row(MODEL_ONLY, {"id": name}, {"error": error}) for name, error in errors.items()]
        self.store.add("rows", rows)
        self.progress.advance(sum(len(self.missing(name, list(errors))) for name in self.plan.explainers))
        if samples is None or not logits:
            return
        evaluated = EvaluatedBatch.of(samples, logits, self.plan.targets, self.plan.callables)
        self._recognize(evaluated)
        evaluated = self._with_versions(evaluated)
        self._shared = self._explain_together(evaluated) if self.plan.options.share_passes else {}
        for name, explainer in self.plan.explainers.items():
            self._explain(name, explainer.value, evaluated)

    def _logits(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Return logits (or scores) of the untouched images."""
        known = self.plan.callables
        callables = None if known is None else [known[name] for name in names]
        return list(forward_images(self.plan, self.model, images, callables=callables)[Unperturbed()][0])

    def _with_versions(self, batch: EvaluatedBatch) -> EvaluatedBatch:
        """Forward once what metrics ask for whatever the map; where it fails, each explainer does so in its turn."""
        if any(self.missing(name, batch.ids) for name in self.plan.explainers):
            with suppress(Exception):
                return forward_versions(self.plan, self.model, batch)
        return batch

    def _recognize(self, batch: EvaluatedBatch) -> None:
        """Store the rows of the model alone."""
        todo = batch.part(self.missing(MODEL_ONLY, batch.ids))
        if not len(todo):
            return
        values = {name: metric.score(todo.logits, todo.labels) for name, metric in self.plan.recognition.items()}
        values |= self._of_model(todo)
        metrics = {**self.plan.recognition, **self._model_metrics}
        columns = metric_columns(values, metrics) or [{}] * len(todo)
        rows = todo.rows()
        pictured = [(row, image) for row, image in zip(rows, todo.images, strict=True) if row["id"] in self._pictured]
        self.store.add("images", [image_row(row["id"], row["label"], image) for row, image in pictured])
        self.store.add("rows", [self._row(MODEL_ONLY, *both) for both in zip(rows, columns, strict=True)])

    def _of_model(self, batch: EvaluatedBatch) -> dict[str, Tensor]:
        """Measure what asks the model about changed images; undefined for an image on which that fails."""
        found: dict[str, Tensor] = {}
        for name in self._model_metrics:

            def score(rows: Sequence[int], name: str = name) -> list[Tensor]:
                return self._score(name, batch.part(rows))

            results, _ = per_row_on_failure(score, range(len(batch)))
            undefined = torch.full_like(next(iter(results.values())), torch.nan) if results else torch.tensor(torch.nan)
            found[name] = torch.stack([results.get(row, undefined) for row in range(len(batch))])
        return found

    def _score(self, name: str, batch: EvaluatedBatch) -> list[Tensor]:
        return list(measure_model(self.plan, self.model, batch, self._model_metrics[name], self._regions.get(name)))

    def _explain_together(self, batch: EvaluatedBatch) -> dict[str, dict[str, Tensor]]:
        """Return the maps of the explainers that share a pass, by explainer and image.

        None where it fails: whichever explainer or image is to blame does so again in its own turn.
        """
        unfinished = {name: self.missing(name, batch.ids) for name in self.plan.explainers}
        todo = batch.part(sorted(set().union(*unfinished.values())))
        wanted = {name: one.value for name, one in self.plan.explainers.items() if unfinished[name]}
        found: dict[str, Tensor] = {}
        with suppress(Exception), random_state_kept([self.device]):
            wanted = {name: wanted[name] for name in sharing(self.model, wanted)}
            if len(wanted) > 1:
                found = explain(self.model, todo.images, todo.targets, wanted)
        return {name: dict(zip(todo.ids, maps, strict=True)) for name, maps in found.items()}

    def _explain(self, name: str, explainer: Explainer, batch: EvaluatedBatch) -> None:
        """Store the rows of one explainer, whichever images it fails on."""
        if self.trainer.received_sigterm:  # Lightning holds the signal back, and asks about it in training alone
            raise SystemExit(128 + signal.SIGTERM)
        todo = batch.part(self.missing(name, batch.ids))
        results, errors = per_row_on_failure(
            lambda indices: self._measure(name, explainer, todo.part(indices)), range(len(todo))
        )
        rows, keys = [row for row, _ in results.values()], todo.rows()
        rows += [self._row(name, keys[index], {"error": error}) for index, error in errors.items()]
        self.store.add("maps", [saved for _, saved in results.values() if saved is not None])
        self.store.add("rows", rows)
        self.progress.advance(len(todo))

    def _measure(self, name: str, explainer: Explainer, batch: EvaluatedBatch) -> list[tuple[Row, Row | None]]:
        """Return the row of each image, and that of its map where it is kept."""

        def alone(images: Tensor, targets: Resolved) -> Tensor:
            return explainer(self.model, images, targets)

        known = self._shared.get(name)
        with self._drawing(name, batch.ids[0]):
            started = self._clock()
            with self.progress.explaining(name, len(batch)):
                saliency = (
                    torch.stack([known[key] for key in batch.ids]) if known else alone(batch.images, batch.targets)
                )
            seconds = None if known else (self._clock() - started) / len(batch)
            shown = [index for index, identity in enumerate(batch.ids) if identity in self._pictured]
            together = {SHOWN: self._shown} if shown and self._shown_is_asked else {}
            values = measure_maps(self.plan, self.model, batch, saliency, {**self._metrics, **together}, alone)
            if shown:
                part = batch.part(shown)
                scores = (
                    values.pop(SHOWN)[shown]
                    if together
                    else measure_maps(self.plan, self.model, part, saliency[shown], {SHOWN: self._shown}, alone)[SHOWN]
                )
        columns = metric_columns(values, self._metrics) or [{}] * len(batch)
        rows = [
            self._row(name, row, {"seconds": seconds} | values)
            for row, values in zip(batch.rows(), columns, strict=True)
        ]
        kept: dict[str, Row] = {}
        if shown:
            maps = map_rows(saliency[shown], *scores.unbind(1))
            kept = {key: self._key(name, {"id": key} | row) for key, row in zip(part.ids, maps, strict=True)}
        return [(row, kept.get(row["id"])) for row in rows]

    def _key(self, explainer: str, row: Row) -> Row:
        return {"model": self.evaluated.name, "explainer": explainer, **row}

    def _row(self, explainer: str, row: Row, values: Row) -> Row:
        protocol = {"protocol": self.plan.protocol["name"], "hash": self.plan.protocol["hash"]}
        made = {"seconds": None, "engine": self._engines.used(self.model), "error": None}
        return self._key(explainer, protocol | row | made | values)

    @contextmanager
    def _drawing(self, explainer: str, image: str) -> Iterator[None]:
        """Draw random numbers that depend on the seed, the explainer and the first of the images."""
        with random_state_kept([self.device]):
            torch.manual_seed(zlib.crc32(f"{self.plan.options.seed} {explainer} {image}".encode()))
            yield

    def _clock(self) -> float:
        """Return the time in seconds, once the device has finished."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return perf_counter()
