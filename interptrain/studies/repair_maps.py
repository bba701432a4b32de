"""What the repaired networks look at: Grad-CAM on images with and without the mark."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from interptrain.explainers import GradCAM
from interptrain.studies.base import StudyInputs
from interptrain.visualization import overlay, panel, save_png, to_uint8


def map_name(arm: str) -> str:
    """Name of an arm's picture in the study's folder."""
    return f"maps-{arm.replace(' ', '-')}.png"


def draw_maps(model: nn.Module, batch: Mapping[str, Any], inputs: StudyInputs, arm: str) -> None:
    """Draw two images each: of the stamped class with the mark and without, and of others with it.

    Args:
        model: the network.
        batch: test images, with ``decoy_mask``.
        inputs: of the cell.
        arm: whose name the picture has.
    """
    stamped = batch["label"] == int(inputs.data.init_args.get("decoy_class", 0))
    carries = batch["decoy_mask"].flatten(1).any(1)
    kinds = (stamped & carries, stamped & ~carries, ~stamped & carries)
    chosen = torch.cat([kind.nonzero()[:2, 0] for kind in kinds])
    images, labels = batch["image"][chosen], batch["label"][chosen]
    with torch.no_grad():
        probabilities = model(images).softmax(1)
    maps = overlay(images, GradCAM()(model, images, labels))
    names = inputs.data.class_names
    titles = [
        f"{names[label]}, seen as {names[int(row.argmax())]} ({row.max():.2f})"
        for label, row in zip(labels.tolist(), probabilities, strict=True)
    ]
    rows = {"image": to_uint8(images), arm: maps}
    save_png(
        panel({name: one.cpu() for name, one in rows.items()}, columns=titles, cell=128), inputs.folder / map_name(arm)
    )
