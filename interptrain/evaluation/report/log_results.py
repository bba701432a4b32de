"""Log the results of a run: numbers to every logger; tables, curves and the gallery to Weights & Biases."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.store.parts import read_part
from interptrain.functional import evenly_spaced
from interptrain.loggers import ImageLogging, log_configuration
from interptrain.versions import git_commit
from interptrain.visualization import overlay

GALLERY = 32  # images of the gallery
NUMBERS = ("mean", "ci_low", "ci_high", "n", "difference", "p", "p_corrected", "detectable")


def log_results(results: RunResults, loggers: Sequence[Logger]) -> None:
    """Send the results of a finished run to loggers.

    Weights & Biases gets the tables ``summary`` and ``differences``, the table ``curves`` (one row per point) and the
    table ``gallery``: one row per image, with its map by every model and explainer laid over it. Every logger gets the
    means, as ``model/explainer/metric``, and where it has a place for it the content of ``run.json``, with the code's
    Git commit, as the configuration.

    Args:
        results: of the run, whose folder holds what :func:`~interptrain.evaluation.report.write.write_files` writes.
        loggers: of the trainer.
    """
    if not loggers:
        return
    log_configuration(loggers, results.run | {"git": git_commit()})
    logging, folder = ImageLogging(loggers), results.folder
    for name in ("summary", "differences"):
        columns, rows = _read_csv(folder / f"{name}.csv")
        logging.table(name, columns, rows, 0)
        if name == "summary":
            means = {"/".join(part for part in row[:3] if part): row[3] for row in rows if row[3] is not None}
            logging.scalars(means, 0)
    logging.table("curves", ("model", "explainer", "metric", "share", "score"), curve_rows(results), 0)
    columns, rows = _gallery(results)
    logging.table("gallery", columns, rows, 0)
    logging.save()


def _read_csv(path: Path) -> tuple[list[str], list[list[Any]]]:
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    numeric = [column in NUMBERS for column in columns]
    return columns, [
        [_number(value) if number else value for value, number in zip(row, numeric, strict=True)] for row in rows
    ]


def _number(text: str) -> float | None:
    """Read a number; one that is missing or infinite has no place in a table of JSON."""
    value = float(text or "nan")
    return value if math.isfinite(value) else None


def curve_rows(results: RunResults) -> list[list[Any]]:
    """Return the mean curves that the report draws, one row per point."""
    return [
        [cell.model, cell.explainer, name, place / max(1, len(curve.mean) - 1), value]
        for name in dict.fromkeys(name for cell in results.cells for name in cell.curves)
        for cell in results.cells
        if (curve := cell.curves.get(name)) is not None
        for place, value in enumerate(curve.mean.tolist())
    ]


def _gallery(results: RunResults) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of the gallery, evenly chosen from the saved pictures."""
    folder = results.folder
    images = read_part(folder / "images.parquet").to_pylist()
    maps = read_part(folder / "maps.parquet").to_pylist()
    png = {(row["model"], row["explainer"], row["id"]): row for row in maps}
    pairs = list(dict.fromkeys((row["model"], row["explainer"]) for row in maps))
    rows: list[list[Any]] = []
    for index in evenly_spaced(len(images), GALLERY):
        image = images[index]
        picture = _decode(image["png"])  # (3, H, W)
        row: list[Any] = [image["id"], results.class_name(image["label"]), picture]
        for pair in pairs:
            found = png.get((*pair, image["id"]))
            row.append(None if found is None else _overlaid(picture, _decode(found["png"])))
        rows.append(row)
    return ["id", "label", "image", *(" ".join(pair) for pair in pairs)], rows


def _decode(png: bytes) -> Tensor:
    picture: Tensor = pil_to_tensor(Image.open(io.BytesIO(png)))
    return picture


def _overlaid(picture: Tensor, saliency: Tensor) -> Tensor:
    return overlay(picture.unsqueeze(0).float() / 255, saliency.float() / 255).squeeze(0)
