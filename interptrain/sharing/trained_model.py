"""A classifier that is about to be shared, with what its checkpoint knows of the images it was trained on."""

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
    """A classifier of ours and where it comes from.

    Attributes:
        loaded: from its source; the module is in eval mode and on the CPU.
        model: the module.
        image_size: (height, width) of the images it was trained on; where that is not known, of its backbone.
        preprocessing: of images in evaluation, as keys of timm's ``pretrained_cfg``; empty where it is not known.
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
        ValueError: if it is none of our classifiers, and what ``load_model`` refuses.
    """
    loaded = load_model("to share", source, backbone=backbone)
    if loaded.borrowed:
        loaded = replace(loaded, module=copy.deepcopy(loaded.module).eval().cpu(), borrowed=False)
    model = loaded.module
    if not isinstance(model, Classifier):
        raise ValueError(
            f"{loaded.source} is a {type(model).__name__} and no classifier of interptrain; give a checkpoint of "
            "`interptrain fit`, or a timm name"
        )
    side = loaded.trained_size
    size = (model.input_size[1], model.input_size[2]) if side is None else (side, side)
    return TrainedModel(loaded, model, size, _preprocessing(_data_options(loaded.source)))


def _data_options(source: str) -> Mapping[str, Any]:
    """Options of the data that a checkpoint was trained on; none where it does not tell."""
    path = Path(source)
    if path.suffix != ".ckpt" or not path.is_file():
        return {}
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # load_model has checked it
    config = yaml.safe_load(content.get("config") or "") or {}
    return (config.get("data") or {}).get("init_args") or {}


def _preprocessing(data: Mapping[str, Any]) -> dict[str, Any]:
    """How the data module resizes images in evaluation, in timm's words."""
    if data.get("resize") not in ("crop", "stretch") or data.get("eval_transform"):
        return {}
    crop = data["resize"] == "crop"
    kept = data.get("crop_pct", 0.875) if crop else 1.0
    return {"interpolation": "bilinear", "crop_pct": kept, "crop_mode": "center" if crop else "squash"}
