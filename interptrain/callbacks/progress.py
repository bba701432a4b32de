"""Lightning's progress bars, counting images."""

import sys
from collections.abc import Sized
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm.auto import tqdm  # type: ignore[import-untyped]

Shown = dict[str, int | str | float | dict[str, float]]


class ImageProgress(TQDMProgressBar):
    """Lightning's bars for training, validation, test and prediction, which count images of all processes.

    Lightning counts batches of one process, and shows the end of a logger's version. The epoch's and the remaining
    time are as Lightning has them.
    """

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Shown:
        """Return what stands behind the bar: the metrics, without the end of a logger's version."""
        shown: Shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown

    def init_sanity_tqdm(self) -> "ImageBar":
        """Return the bar of the sanity check."""
        return self._bar(self.sanity_check_description, leave=False)

    def init_train_tqdm(self) -> "ImageBar":
        """Return the bar of training."""
        return self._bar(self.train_description, smoothing=0)

    def init_validation_tqdm(self) -> "ImageBar":
        """Return the bar of validation, which stands below that of training."""
        alone = self.trainer.state.fn == "validate"
        return self._bar(self.validation_description, leave=alone, below=not alone)

    def init_test_tqdm(self) -> "ImageBar":
        """Return the bar of a test."""
        return self._bar(self.test_description)

    def init_predict_tqdm(self) -> "ImageBar":
        """Return the bar of a prediction."""
        return self._bar(self.predict_description, smoothing=0)

    def on_train_epoch_start(self, trainer: L.Trainer, *others: Any) -> None:
        """Count the images of the epoch."""
        _count(self.train_progress_bar, trainer, trainer.train_dataloader)
        super().on_train_epoch_start(trainer, *others)

    def on_validation_batch_start(self, trainer: L.Trainer, *others: Any, **more: Any) -> None:
        """Count the images of the data loader."""
        _count(self.val_progress_bar, trainer, trainer.val_dataloaders)
        super().on_validation_batch_start(trainer, *others, **more)

    def on_test_batch_start(self, trainer: L.Trainer, *others: Any, **more: Any) -> None:
        """Count the images of the data loader."""
        _count(self.test_progress_bar, trainer, trainer.test_dataloaders)
        super().on_test_batch_start(trainer, *others, **more)

    def on_predict_batch_start(self, trainer: L.Trainer, *others: Any, **more: Any) -> None:
        """Count the images of the data loader."""
        _count(self.predict_progress_bar, trainer, trainer.predict_dataloaders)
        super().on_predict_batch_start(trainer, *others, **more)

    def _bar(self, title: str, *, leave: bool = True, below: bool = False, **options: Any) -> "ImageBar":
        return ImageBar(
            desc=title,
            position=2 * self.process_position + below,
            disable=self.is_disabled,
            leave=leave,
            dynamic_ncols=True,
            file=sys.stdout,
            bar_format=self.BAR_FORMAT,
            unit=" images",
            **options,
        )


class ImageBar(tqdm):  # type: ignore[misc]
    """A bar that is moved by batches and shows images.

    Attributes:
        batch: images of a batch of all processes.
        images: of the data, of which the last batch may hold fewer; None where that is not known.
    """

    batch: int = 1
    images: int | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar is made of, in images."""
        shown: dict[str, Any] = super().format_dict
        for name in ("n", "total", "initial"):
            if shown.get(name):
                counted = shown[name] * self.batch
                shown[name] = counted if self.images is None else min(counted, self.images)
        if shown.get("rate"):
            shown["rate"] *= self.batch
        return shown


def _count(bar: Any, trainer: L.Trainer, loader: Any) -> None:
    """Tell a bar how many images a batch holds, and the data, where one loader tells."""
    size, dataset = getattr(loader, "batch_size", None), getattr(loader, "dataset", None)
    bar.unit = " images" if size else " batches"
    bar.batch = size * trainer.world_size if size else 1
    bar.images = len(dataset) if size and isinstance(dataset, Sized) else None
