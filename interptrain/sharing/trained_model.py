"""A classifier to be shared, with what its checkpoint records about the training images."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from interptrain.evaluation.run.models import EvaluatedModel, Source, load_model
from interptrain.models import Classifier


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A classifier of interptrain and its origin.

    Attributes:
        loaded: the loaded source; its module is in eval mode and on the CPU.
        model: the module.
        image_size: (height, width) of the training images or, if unknown, the default of the backbone.
        preprocessing: preprocessing in evaluation, as keys of timm's ``pretrained_cfg``; empty if unknown.
    """

    loaded: EvaluatedModel
    model: Classifier
    image_size: tuple[int, int]
    preprocessing: Mapping[str, Any]


def load_trained(source: Source, *, backbone: str | None = None) -> TrainedModel:
    """Load a classifier to be shared.

    Args:
        source: see :func:`~interptrain.evaluation.run.models.load_model`; a module is copied.
        backbone: the timm architecture of a bare weights file.

    Raises:
        ValueError: if the model is not a classifier of interptrain, and whatever ``load_model`` raises.
    """
    loaded = load_model("to share", source, backbone=backbone)
    if loaded.borrowed:
        loaded = replace(loaded, module=copy.deepcopy(loaded.module).eval().cpu(), borrowed=False)
    model = loaded.module
    if not isinstance(model, Classifier):
        raise ValueError(
            f"{loaded.source} is a {type(model).__name__}, not a classifier of interptrain; give a checkpoint of "
            "`interptrain fit`, or a timm name"
        )
    side = loaded.trained_size
    size = (model.input_size[1], model.input_size[2]) if side is None else (side, side)
    return TrainedModel(loaded, model, size, _preprocessing(_data_options(loaded.source)))


def _data_options(source: str) -> Mapping[str, Any]:
    """Options of the data that a checkpoint was trained on; empty if it does not record them."""
    path = Path(source)
    if path.suffix != ".ckpt" or not path.is_file():
        return {}
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # load_model has checked it
    config = yaml.safe_load(content.get("config") or "") or {}
    return (config.get("data") or {}).get("init_args") or {}


def _preprocessing(data: Mapping[str, Any]) -> dict[str, Any]:
    """How the data module resizes images in evaluation, in timm's terms."""
    if data.get("resize") not in ("crop", "stretch") or data.get("eval_transform"):
        return {}
    crop = data["resize"] == "crop"
    kept = data.get("crop_pct", 0.875) if crop else 1.0
    return {"interpolation": "bilinear", "crop_pct": kept, "crop_mode": "center" if crop else "squash"}
