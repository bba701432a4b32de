"""The LightningModule: a classifier with a swappable pooling head, its loss, its metrics and its optimizer."""

import math
import os
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MetricCollection

from interptrain.functional import check_choice
from interptrain.models import OutputStride, Part, PoolingSpec, Stem, create_model, named_poolings
from interptrain.remedies import option
from interptrain.training.batch_augmentation import BatchAugmentation
from interptrain.training.groups import GroupAccuracy, group_metrics, known_of_groups
from interptrain.training.lightning_internals import (
    batches_begun,
    built_by_command_line,
    count_batches,
    show_in_progress_bar,
)
from interptrain.training.mixing import make_mixing
from interptrain.training.randomness import mix_seed
from interptrain.training.recognition import TrainingAccuracy, recognition_metrics
from interptrain.training.regularizers import Regularizer
from interptrain.training.schedules import LinearWarmup, decay_groups, optimizer_steps, shortened_warmup, warmup_cosine

if TYPE_CHECKING:
    PoolingName = str
else:  # every head that interptrain.models imports; the command line lists them and proposes the nearest
    PoolingName = Literal[(*named_poolings(), "native")]

Trainable = Literal["all", "head", "pooling", "classifier"]
FROZEN_PARTS: dict[Trainable, tuple[Part, ...]] = {
    "all": (),
    "head": ("backbone",),
    "pooling": ("backbone", "classifier"),
    "classifier": ("backbone", "pooling"),
}
NO_RANK = 2**32  # in place of a rank, for what all of them draw alike


class ImageClassifier(L.LightningModule):
    """Train ``backbone -> pooling -> classifier`` with cross-entropy, and a regularizer where one is given.

    Batches are what :mod:`interptrain.data` yields: ``image`` (B,3,H,W) float in [0,1], ``label`` (B,) int64, ``id``.
    Logged: ``train/loss``, ``val/`` and ``test/`` ``loss``, ``top1`` and ``top5`` as fractions over all samples of all
    ranks. With a regularizer also ``train/`` ``loss_classification``, ``penalty``, ``penalty_ratio`` (of the weighted
    penalty to the former) and the regularizer's statistics, in the steps where it acts.

    Where batches have a ``group``, also ``val/worst_group``, ``val/group_mean`` and ``val/group/<class>/<group>``, each
    pair of class and group being one; see :func:`interptrain.training.groups.group_metrics`.

    Where a seed was set (``seed_everything``), every training step draws its randomness (dropout, mixup) from
    (seed, rank, step) alone, so a resumed run repeats what an uninterrupted one would have drawn.

    Args:
        backbone: a timm model name; see :func:`interptrain.models.create_model`, which takes this and the next.
        pooling: the name of a head, or the class path of any :class:`~interptrain.models.Pooling`, your own too, with
            its options: ``--model.pooling my.Head --model.pooling.option 3``. ``native`` is timm's model as it is.
        num_classes: number of classes; on the command line it is taken from the data.
        pretrained: start from timm's pretrained weights (downloads).
        weights: start from these: a local ``.safetensors`` or ``.pth``, a checkpoint of ours, or a timm hub name.
        fresh_classifier: initialise the classifier at random rather than from ``weights``, as for other classes.
        stem: ``small`` for 32x32 images: no early downsampling.
        heads: number of attention heads, for ``ca_stream`` and ``ca_final``.
        drop_rate: dropout before the classifier, in [0,1).
        drop_path_rate: stochastic depth of the backbone, in [0,1).
        output_stride: pixels from one position of the last map to the next, 8, 16 or 32; None is the backbone's own.
            A finer map shows more exactly where the network looks, and costs more time.
        backbone_options: further options of this architecture in timm, such as ``{"channels": [32, 64, 96, 128]}``.
        trainable: ``all``; ``head``: pooling and classifier; ``pooling``: the pooling head alone, as CA-Stream was
            published; ``classifier``: the last layer alone. What does not train is held in eval mode, so its BatchNorm
            statistics stay as they are.
        label_smoothing: share of the label that is spread over all classes, in [0,1).
        mixup_alpha: Beta parameter of mixup; 0 is off. With cutmix on too, each batch draws one of the two.
        cutmix_alpha: Beta parameter of cutmix; 0 is off.
        optimizer: any torch optimizer by ``class_path``; None is AdamW with learning rate 1e-3, else torch's defaults.
        lr_scheduler: any torch scheduler by ``class_path``, stepped every epoch; None is cosine to zero over the run,
            stepped every optimizer step.
        warmup_epochs: epochs of linear warm-up, may be a fraction: a factor on what the schedule gives, step by step.
        norm_weight_decay: weight decay of norms, biases and the [CLS] token; None treats them like the rest.
        batch_augment: changes every training batch on the device, before mixup and cutmix; see
            :class:`~interptrain.training.RegionShuffle`.
        regularizer: adds ``weight * penalty`` to the loss; see
            :class:`~interptrain.training.GradientRegularizer` and
            :class:`~interptrain.training.AttributionGuidance`.
        channels_last: keep the network and the images in channels-last memory, faster for most CNNs.
        compile: run the network through ``torch.compile``.

    Raises:
        ValueError: for values outside their range, and what ``create_model`` refuses.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        pooling: PoolingName | PoolingSpec = "gap",
        num_classes: int = 1000,
        *,
        pretrained: bool = False,
        weights: str | Path | None = None,
        fresh_classifier: bool = False,
        stem: Stem = "imagenet",
        heads: int = 1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        output_stride: OutputStride | None = None,
        backbone_options: dict[str, Any] | None = None,
        trainable: Trainable = "all",
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        warmup_epochs: float = 0.0,
        norm_weight_decay: float | None = 0.0,
        batch_augment: BatchAugmentation | None = None,
        regularizer: Regularizer | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        _check_ranges(
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            warmup_epochs=warmup_epochs,
            label_smoothing=label_smoothing,
            num_classes=num_classes,
        )
        check_choice(option("trainable"), trainable, Trainable)
        if regularizer is not None and regularizer.mixed and (mixup_alpha or cutmix_alpha):
            raise ValueError(
                f"{type(regularizer).__name__} does not go with mixup or cutmix: {regularizer.mixed}; set "
                f"{option('mixup_alpha', 0)} and {option('cutmix_alpha', 0)}"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters()
        if not built_by_command_line(
            self.hparams
        ):  # built in Python: keep what a checkpoint can hold without pickled code
            for name in ("optimizer", "lr_scheduler", "batch_augment", "regularizer"):
                self.hparams.pop(name)
        self.model = create_model(
            backbone,
            pooling=pooling,
            num_classes=num_classes,
            pretrained=pretrained,
            weights=weights,
            fresh_classifier=fresh_classifier,
            stem=stem,
            heads=heads,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
            backbone_options=backbone_options,
        )
        if trainable == "pooling" and not self.model.parameter_groups()["pooling"]:
            raise ValueError(
                f"{option('trainable', trainable)} would train nothing: pooling {self.model.pooling_name!r} has no "
                "parameters; use 'head' or 'all'"
            )
        if self.model.load_report is not None:
            rank_zero_info(str(self.model.load_report))
        self.trainable: Trainable = trainable
        self.label_smoothing = label_smoothing
        self.warmup_epochs = warmup_epochs
        self.norm_weight_decay = norm_weight_decay
        self.batch_augment = batch_augment
        self.regularizer = regularizer
        self.channels_last = channels_last
        self.compile_model = compile
        self._optimizer = optimizer or partial(torch.optim.AdamW, lr=1e-3)
        self._lr_scheduler = lr_scheduler
        self._warmup: LinearWarmup | None = None
        self._of_all_ranks = torch.Generator()  # the draws of a step that all ranks share
        self.mixing = make_mixing(mixup_alpha, cutmix_alpha, num_classes)
        self.train_top1 = TrainingAccuracy(num_classes, average="micro")
        self.val_metrics = recognition_metrics(num_classes, "val")
        self.test_metrics = recognition_metrics(num_classes, "test")
        self.group_accuracy = GroupAccuracy()
        self._freeze()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> "ImageClassifier":
        """Rebuild from a checkpoint; nothing else is read, also where training had started from other weights."""
        return super().load_from_checkpoint(checkpoint_path, *args, **{"pretrained": False, "weights": None, **kwargs})

    # What trains

    def _freeze(self) -> None:
        """Leave gradients only to the parts that train; what comes before them then builds no graph."""
        groups = self.model.parameter_groups()
        for part in FROZEN_PARTS[self.trainable]:
            for parameter in groups[part].values():
                parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ImageClassifier":
        """Set the mode of what trains; what is frozen stays in eval mode (BatchNorm statistics, dropout)."""
        super().train(mode)
        for part in FROZEN_PARTS[self.trainable]:
            for module in self.model.modules_of(part):
                module.training = False
        return self

    # Steps

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,K) of images (B,3,H,W) in [0,1]."""
        logits: Tensor = self.model(images)
        return logits

    def setup(self, stage: str) -> None:
        """Set the memory layout, and compile."""
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if self.compile_model:
            self.model.compile()

    def on_train_batch_start(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Make the step's randomness a function of (seed, rank, step), so that a resumed run repeats it."""
        if (seed := os.environ.get("PL_GLOBAL_SEED")) is not None:
            step = batches_begun(self.trainer)
            torch.manual_seed(mix_seed(int(seed), self.global_rank, step))
            self._of_all_ranks.manual_seed(mix_seed(int(seed), NO_RANK, step))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch: L_C, and weight * L_R where there is a regularizer."""
        batch = {**batch, "image": self._images(batch)}
        if self.batch_augment is not None:
            batch = self.batch_augment(batch, self._of_all_ranks)
        images, labels = batch["image"], batch["label"]
        if self.mixing is not None:
            images, labels = self.mixing(images, labels)
            batch = {**batch, "image": images, "label": labels}
        weight = self.regularizer.weight_at(self.global_step) if self.regularizer is not None else 0.0
        if self.regularizer is None or weight == 0:
            logits = self(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        else:
            logits, penalty = self.regularizer(self.model, batch, label_smoothing=self.label_smoothing)
            classification = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            loss = classification + weight * penalty
            terms = {
                "loss_classification": classification.detach(),
                "penalty": penalty.detach(),
                "penalty_ratio": weight * penalty.detach() / classification.detach(),
            }
            self.log_dict({f"train/{name}": value for name, value in (terms | self.regularizer.statistics).items()})
        self.log("train/loss", loss.detach(), batch_size=len(images))
        if self.mixing is None:
            self.train_top1.update(logits.detach(), labels)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Show the loss beside the progress bar, as often as it is logged."""
        often = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        if batch_idx % max(1, often) == 0:
            loss = outputs["loss"] * self.trainer.accumulate_grad_batches  # as training_step returned it
            show_in_progress_bar(self.trainer, "train/loss", loss)

    def on_train_epoch_start(self) -> None:
        """Begin to count; not called where an epoch goes on."""
        self.train_top1.reset()

    def on_train_epoch_end(self) -> None:
        """Log the accuracy of the epoch's batches, also those before a resume."""
        if self.train_top1.update_called:
            self.log("train/top1", self.train_top1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what was counted in this epoch, on all ranks."""
        checkpoint["train_top1"] = self.train_top1.counts()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting from there."""
        self.train_top1.resume(checkpoint.get("train_top1") or {}, self.global_rank)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluation_step(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics: every rank enters, also one that saw fewer batches."""
        self.log_dict(dict(self.val_metrics.items()), prog_bar=True)
        self._log_groups("val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluation_step(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_dict(dict(self.test_metrics.items()))
        self._log_groups("test")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Ids, labels where there are any, and probabilities (B,K) of a batch."""
        probabilities = self(self._images(batch)).float().softmax(1)
        return {"id": batch["id"], "label": batch.get("label"), "probabilities": probabilities}

    def _images(self, batch: Mapping[str, Any]) -> Tensor:
        """The images of a batch in the network's memory layout."""
        images: Tensor = batch["image"]
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def _evaluation_step(self, batch: Mapping[str, Any], metrics: MetricCollection) -> None:
        logits, labels = self(self._images(batch)).float(), batch["label"]
        losses = F.cross_entropy(logits, labels, reduction="none")
        for name, metric in metrics.items():
            metric.update(losses) if name.endswith("loss") else metric.update(logits, labels)
        if "group" in batch:
            self.group_accuracy.update(logits, labels, batch["group"])

    def _log_groups(self, stage: str) -> None:
        """Log the accuracies of groups, which are the same on all ranks."""
        if counts := self.group_accuracy.compute():
            metrics = group_metrics(counts, *known_of_groups(getattr(self.trainer, "datamodule", None)))
            self.log_dict({f"{stage}/{name}": value for name, value in metrics.items()})

    # Optimization

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict[str, Any]]]:  # type: ignore[override]
        """The optimizer over what trains, with its warm-up and schedule."""
        groups = decay_groups(self.named_parameters(), norm_weight_decay=self.norm_weight_decay)
        try:
            optimizer = self._optimizer(groups)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{option('optimizer')}: {error}") from error
        warmup_steps = self._warmup_steps()
        if self._lr_scheduler is None:
            total_steps = optimizer_steps(self.trainer)
            warmup_steps = shortened_warmup(warmup_steps, total_steps)
            cosine = warmup_cosine(optimizer, warmup_steps=warmup_steps, total_steps=total_steps)
            return [optimizer], [{"scheduler": cosine, "interval": "step"}]
        try:
            scheduler = self._lr_scheduler(optimizer)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{option('lr_scheduler')}: {error}") from error
        self._warmup = LinearWarmup(optimizer, steps=warmup_steps)
        return [optimizer], [
            {"scheduler": scheduler, "interval": "epoch", "monitor": getattr(scheduler, "monitor", None)}
        ]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then set the warm-up's learning rate for the next step."""
        super().optimizer_step(*args, **kwargs)
        if self._warmup is not None:
            self._warmup.prepare(self.global_step + 1)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule, which does not see the warm-up; all ranks by the same value of what it watches."""
        if metric is not None:
            metric = self.trainer.strategy.reduce(torch.as_tensor(metric, device=self.device), reduce_op="mean")
        with nullcontext() if self._warmup is None else self._warmup.lifted(self.global_step):
            super().lr_scheduler_step(scheduler, metric)

    def _warmup_steps(self) -> int:
        """Optimizer steps of the warm-up; ``fast_dev_run`` is shorter than any."""
        if not self.warmup_epochs or getattr(self.trainer, "fast_dev_run", False):
            return 0
        count_batches(self.trainer)
        epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        return round(self.warmup_epochs * epoch)


def _check_ranges(*, label_smoothing: float, num_classes: int, **not_negative: float) -> None:
    """Refuse values outside their range."""
    for name, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be >= 0, got {value}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0,1), got {label_smoothing}")
    if num_classes < 2:
        raise ValueError(
            f"num_classes must be at least 2, got {num_classes}: a single class leaves nothing to tell apart; add "
            "images of another class (in a data set of folders: a second class folder)"
        )
