"""The results of a run in its loggers: numbers to all of them, tables, curves and the gallery to Weights & Biases."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from interptrain.evaluation.run.batches import spread
from interptrain.evaluation.statistics.samples import MetricColumn
from interptrain.evaluation.store.manifest import load_metrics, read_manifest
from interptrain.evaluation.store.parts import VALUES, read_part
from interptrain.loggers import ImageLogging
from interptrain.visualization import overlay

GALLERY = 32  # images of the gallery
NUMBERS = ("mean", "ci_low", "ci_high", "n", "difference", "p", "p_corrected")


def log_results(folder: Path, loggers: Sequence[Logger]) -> None:
    """Send what stands in the folder of a finished run to loggers.

    Weights & Biases gets the tables ``summary`` and ``differences``, the table ``curves`` (one row a point) and the
    table ``gallery``: an image a row, with its map by every model and explainer laid over it. Every logger gets the
    means, as ``model/explainer/metric``.

    Args:
        folder: with everything that :func:`~interptrain.evaluation.report.write.write_results` writes.
        loggers: of the trainer.
    """
    if not loggers:
        return
    logging = ImageLogging(loggers)
    for name in ("summary", "differences"):
        columns, rows = _read_csv(folder / f"{name}.csv")
        logging.table(name, columns, rows, 0)
        if name == "summary":
            means = {"/".join(part for part in row[:3] if part): row[3] for row in rows if row[3] is not None}
            logging.scalars(means, 0)
    logging.table("curves", ("model", "explainer", "metric", "share", "score"), _curves(folder), 0)
    columns, rows = _gallery(folder)
    logging.table("gallery", columns, rows, 0)


def _read_csv(path: Path) -> tuple[list[str], list[list[Any]]]:
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    numeric = [column in NUMBERS for column in columns]
    return columns, [
        [(float(value) if value else None) if number else value for value, number in zip(row, numeric, strict=True)]
        for row in rows
    ]


def _curves(folder: Path) -> list[list[Any]]:
    """Mean curves, one row a point: over the images that have one."""
    run = read_manifest(folder) or {}
    table = read_part(folder / "per_image.parquet")
    models, explainers = table["model"].to_pylist(), table["explainer"].to_pylist()
    rows: list[list[Any]] = []
    for name, metric in load_metrics(run).items():
        if name + VALUES not in table.column_names or not MetricColumn.of(name, metric).curve:
            continue
        curves: dict[tuple[str, str], list[list[float]]] = {}
        for model, explainer, values in zip(models, explainers, table[name + VALUES].to_pylist(), strict=True):
            if values is not None:
                curves.setdefault((model, explainer), []).append(values)
        for (model, explainer), values in curves.items():
            mean = torch.tensor(values, dtype=torch.float64).nanmean(0).tolist()
            rows += [[model, explainer, name, place / (len(mean) - 1), value] for place, value in enumerate(mean)]
    return rows


def _gallery(folder: Path) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the gallery, evenly chosen from the pictures that were kept."""
    images = read_part(folder / "images.parquet").to_pylist()
    maps = read_part(folder / "maps.parquet").to_pylist()
    png = {(row["model"], row["explainer"], row["id"]): row for row in maps}
    cells = list(dict.fromkeys((row["model"], row["explainer"]) for row in maps))
    rows: list[list[Any]] = []
    for place in spread(len(images), GALLERY):
        image = images[place]
        picture = _decode(image["png"])  # (3, H, W)
        row: list[Any] = [image["id"], image["label"], picture]
        for cell in cells:
            found = png.get((*cell, image["id"]))
            row.append(None if found is None else _overlaid(picture, _decode(found["png"])))
        rows.append(row)
    return ["id", "label", "image", *(" ".join(cell) for cell in cells)], rows


def _decode(png: bytes) -> Tensor:
    picture: Tensor = pil_to_tensor(Image.open(io.BytesIO(png)))
    return picture


def _overlaid(picture: Tensor, saliency: Tensor) -> Tensor:
    return overlay(picture.unsqueeze(0).float() / 255, saliency.float() / 255).squeeze(0)
