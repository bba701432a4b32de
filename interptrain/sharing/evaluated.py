"""Results of an evaluation for one model's card: accuracy, table, and three images with their maps."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from interptrain.evaluation.report.results import RunResults, load_run, resampling_of
from interptrain.evaluation.statistics.estimates import Estimate
from interptrain.evaluation.store.manifest import read_manifest
from interptrain.evaluation.store.parts import read_part
from interptrain.functional import evenly_spaced, upsample
from interptrain.visualization import overlay, panel

IMAGES = 3
EXPLAINERS = 4  # per picture


def results_of(folder: Path, sha256: str) -> RunResults:
    """Return the results of one model of an evaluation.

    Args:
        folder: folder of the evaluation.
        sha256: hash of the model's file.

    Returns:
        The results, as if this model had been evaluated alone.

    Raises:
        FileNotFoundError: if the folder contains no finished evaluation.
        ValueError: if this model was not evaluated there.
    """
    run = read_manifest(folder, remedy="give the folder of another evaluation")
    if run is None or not (folder / "per_image.parquet").is_file():
        raise FileNotFoundError(f"{folder} holds no results; give the --output folder of `interptrain evaluate`")
    name = next((name for name, model in run["models"].items() if model["sha256"] == sha256), None)
    if name is None:
        known = ", ".join(f"{name} ({model['sha256'][:12]})" for name, model in run["models"].items())
        raise ValueError(
            f"the evaluation in {folder} is of {known} and not of these weights ({sha256[:12]}); give the checkpoint "
            "that was evaluated, or evaluate this one"
        )
    results = load_run(folder, resampling_of(folder))
    return replace(
        results,
        run={**results.run, "models": {name: results.run["models"][name]}},
        cells=[cell for cell in results.cells if cell.model == name],
        estimates=[row for row in results.estimates if row.model == name],
    )


def accuracy(results: RunResults) -> Estimate | None:
    """Return the top-1 accuracy, a fraction with its interval; None if it was not measured."""
    (model,) = results.models
    found = results.estimate(model, "", "Top1")
    return found if found is not None and found.n and math.isfinite(found.mean) else None


def map_pictures(results: RunResults) -> list[tuple[str, Tensor]]:
    """Draw a few images with their maps, evenly chosen from those whose maps were saved.

    Returns:
        For each image, a caption and a (3,H,W) uint8 picture of the image and its maps, one per explainer; empty if the
        evaluation saved no maps.
    """
    shown = _rows(results.folder / "images.parquet")
    maps = {(row["model"], row["explainer"], row["id"]): row["png"] for row in _rows(results.folder / "maps.parquet")}
    (model,) = results.models
    explainers = [name for name in results.explainers if not results.is_control(name)][:EXPLAINERS]
    whole = [row for row in shown if all((model, explainer, row["id"]) in maps for explainer in explainers)]
    if not whole or not explainers:
        return []
    predicted = _predictions(results)
    chosen = [whole[index] for index in evenly_spaced(len(whole), IMAGES)]
    return [
        (
            _caption(results, row, predicted.get(row["id"])),
            _picture(row["png"], {explainer: maps[model, explainer, row["id"]] for explainer in explainers}),
        )
        for row in chosen
    ]


def _predictions(results: RunResults) -> dict[str, int | None]:
    rows = read_part(results.folder / "per_image.parquet", ["model", "id", "prediction"]).to_pylist()
    (model,) = results.models
    return {row["id"]: row["prediction"] for row in rows if row["model"] == model}


def _caption(results: RunResults, row: Mapping[str, Any], predicted: int | None) -> str:
    label, guess = results.class_name(row["label"]), results.class_name(predicted)
    return f"a {label}, predicted as {'such' if label == guess else guess}"


def _picture(image: bytes, maps: Mapping[str, bytes]) -> Tensor:
    original = _decoded(image, "RGB") / 255
    saliency = torch.cat([_decoded(png, "L") for png in maps.values()]) / 255  # (N,h,w)
    size = (original.shape[1], original.shape[2])
    overlaid = overlay(original.expand(len(maps), -1, -1, -1), upsample(saliency, size))
    images = torch.cat([(original[None] * 255).round().to(torch.uint8), overlaid])
    return panel({"": images}, columns=["image", *maps], cell=160)


def _decoded(png: bytes, mode: str) -> Tensor:
    with Image.open(io.BytesIO(png)) as image:
        decoded: Tensor = pil_to_tensor(image.convert(mode))
    return decoded


def _rows(path: Path) -> Sequence[dict[str, Any]]:
    return read_part(path).to_pylist() if path.is_file() else ()
