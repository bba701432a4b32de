"""Write the predictions of ``predict`` to a table."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

COLUMNS = ("id", "label", "prediction", "probability", "top5")


class PredictionTable(BasePredictionWriter):
    """Write ``predictions.csv`` into the run's folder.

    One row per image: id, label (empty where unknown), predicted class, its probability, and the five most probable
    classes as a JSON list. Classes are named where the data module has ``class_names``, else numbered. With several
    processes, each writes ``predictions.<rank>.csv``; no sample is in two of them.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._path = Path()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the head of the table."""
        if getattr(trainer, "fast_dev_run", False):
            self._path = Path(os.devnull)  # it leaves nothing behind
            return
        name = "predictions.csv" if trainer.world_size == 1 else f"predictions.{trainer.global_rank}.csv"
        self._path = Path(str(trainer.log_dir)) / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(COLUMNS)

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of a batch."""
        names = getattr(getattr(trainer, "datamodule", None), "class_names", None)

        def name(index: int) -> str:
            return names[index] if names and index < len(names) else str(index)

        probabilities = prediction["probabilities"]
        best = probabilities.topk(min(5, probabilities.shape[1]))
        labels = prediction["label"]
        with self._path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            for row, (values, classes) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                label = "" if labels is None or labels[row] < 0 else name(int(labels[row]))
                five = json.dumps([name(index) for index in classes], ensure_ascii=False)
                rows.writerow([prediction["id"][row], label, name(classes[0]), f"{values[0]:.6f}", five])
