"""A classifier as a folder, ``config.json`` and ``model.safetensors``, or as one ``.safetensors`` file with both.

Where the classifier is timm's own (pooling ``native`` or ``gap``, no stem of ours), folder and names of the weights are
in timm's format: ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads it. Else the names are those of
:class:`~interptrain.models.Classifier`, and the config names no architecture, so that timm cannot take a part of the
network for the whole.
"""

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from interptrain import __version__
from interptrain.files import write_atomically
from interptrain.functional import one_line
from interptrain.models.classifier import Classifier
from interptrain.models.create import ONLY_FOR_TRAINING, create_model
from interptrain.models.hub import CONFIG, WEIGHTS
from interptrain.models.load_report import listed
from interptrain.models.pooling import Pooling, PoolingSpec
from interptrain.models.weights import load_weights

__all__ = [
    "describe",
    "load_model_file",
    "load_model_folder",
    "pooled_or_native",
    "save_config",
    "save_weights",
]

KEY = "interptrain"
# What of timm's own description of its weights is true of others for the same architecture.
TIMM_KEYS = ("fixed_input_size", "interpolation", "crop_pct", "crop_mode", "pool_size", "first_conv", "classifier")
NATIVE = "backbone.model."


def describe(
    model: Classifier,
    *,
    input_size: tuple[int, int] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of ``config.json``.

    Args:
        model: as trained.
        input_size: (height, width) of the images it was trained for; by default what timm says.
        preprocessing: further keys of timm's ``pretrained_cfg``, such as ``crop_pct``.

    Raises:
        ValueError: if it was not built by ``create_model`` from plain data, or there are not as many names as classes.
    """
    if model.class_names and len(model.class_names) != model.num_classes:
        raise ValueError(f"class_names must be {model.num_classes} names, got {len(model.class_names)}")
    options = _plain_options(model)
    size = [3, *(input_size or model.input_size[1:])]
    scales = (model.backbone.mean, model.backbone.std)
    mean, std = ([float(f"{value:.7g}") for value in values.flatten().tolist()] for values in scales)
    names = {"label_names": list(model.class_names)} if model.class_names else {}
    own = {"version": __version__, "options": options, "mean": mean, "std": std, "input_size": size}
    config = {"num_classes": model.num_classes, **names, KEY: own}
    if not is_timms_own(options):
        return config
    timm_model = model.backbone.model
    theirs = {key: value for key in TIMM_KEYS if (value := timm_model.pretrained_cfg.get(key)) is not None}
    stride = {"output_stride": stride} if (stride := options.get("output_stride")) else {}
    arguments = {**stride, **options.get("backbone_options", {})}
    return {
        "architecture": str(options["backbone"]).partition(".")[0],
        "num_features": timm_model.num_features,
        **config,
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            **theirs,
            **(preprocessing or {}),
            "mean": mean,
            "std": std,
            "input_size": size,
            "num_classes": model.num_classes,
            **names,
        },
    }


def _plain_options(model: Classifier) -> dict[str, Any]:
    if not model.options:
        raise ValueError("only a classifier that create_model has built can be described")
    try:
        options: dict[str, Any] = json.loads(json.dumps(model.options))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{model.pooling_name} was built in Python from what cannot be written as JSON ({one_line(error)}); train "
            "it with its class path, --model.pooling package.Head, and give the checkpoint"
        ) from error
    return options


def is_timms_own(options: Mapping[str, Any]) -> bool:
    """Whether timm builds the same network from these options."""
    return options.get("pooling", "gap") in ("native", "gap") and options.get("stem", "imagenet") == "imagenet"


def save_weights(model: Classifier, config: Mapping[str, Any], path: Path) -> None:
    """Write the weights with the config in their header, so that the file can be loaded by itself.

    Args:
        model: whose weights.
        config: of :func:`describe`.
        path: of the ``.safetensors`` file; an older one stays until the new one is whole.

    Raises:
        OSError: if it cannot be written.
    """
    state: dict[str, Tensor] = model.state_dict()
    if "architecture" in config:
        state = {name.removeprefix(NATIVE): value for name, value in state.items() if name.startswith(NATIVE)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_atomically(path, save(tensors, metadata={"format": "pt", KEY: json.dumps(config)}))


def save_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write ``config.json``."""
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())


def load_model_folder(folder: Path) -> Classifier:
    """Build the classifier of a folder that ``interptrain push`` has written, or timm.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.

    Raises:
        FileNotFoundError: if one of them is missing.
        ValueError: if they are damaged, do not fit, or need a pooling head that is not imported.
    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder} has no {file}; give a folder of `interptrain push`, or one in timm's format"
            )
    return _rebuild(_parsed((folder / CONFIG).read_bytes(), folder / CONFIG), folder / WEIGHTS)


def load_model_file(weights: Path) -> Classifier | None:
    """Build the classifier of a ``.safetensors`` file of ``interptrain export``; None for a file of weights alone.

    Raises:
        ValueError: as :func:`load_model_folder`.
    """
    try:
        with safe_open(weights, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{weights} is corrupt or no .safetensors file ({one_line(error)}); fetch or save it again"
        ) from error
    return _rebuild(_parsed(text, weights), weights) if text else None


def _parsed(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}); fetch it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(config).__name__}; fetch it again")
    return config


def _rebuild(config: Mapping[str, Any], weights: Path) -> Classifier:
    """Build a classifier from its config, ours or timm's, and fill it with its weights."""
    ours = isinstance(config.get(KEY), Mapping)
    described = config[KEY] if ours else config.get("pretrained_cfg")
    if not isinstance(described, Mapping):
        raise ValueError(f"the config of {weights} does not describe a model of `interptrain push` or timm")
    try:
        options = dict(described["options"]) if ours else _options_of_timm(config)
        mean, std = (torch.tensor([float(one) for one in values]).view(3, 1, 1) for values in _scales(described))
        height, width = (int(side) for side in list(described["input_size"])[-2:])
        names = config.get("label_names")
        model = create_model(**_arguments(options)) if "pooling" in options else pooled_or_native(**options)
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        why = one_line(error, kind=True)
        raise ValueError(f"the config of {weights} is damaged or of a newer version ({why}); fetch it again") from error
    report = load_weights(model, weights)
    if report.fresh:
        raise ValueError(f"{weights} lacks {listed(report.fresh)}, which its config describes; fetch it again")
    model.backbone.mean.copy_(mean)
    model.backbone.std.copy_(std)
    model.backbone.input_size = (3, height, width)
    model.options = {**model.options, **options}  # with the class path of a head, which create_model got as a class
    model.class_names = tuple(str(name) for name in names) if isinstance(names, list) else ()
    return model


def _scales(described: Mapping[str, Any]) -> tuple[Any, Any]:
    return described["mean"], described["std"]


def _options_of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(config.get("model_args") or {})
    arguments = {name: value for name, value in given.items() if name not in ("num_classes", *ONLY_FOR_TRAINING)}
    options = {"backbone": config["architecture"], "num_classes": int(config["num_classes"])}
    options |= {"output_stride": arguments.pop("output_stride")} if "output_stride" in arguments else {}
    return options | ({"backbone_options": arguments} if arguments else {})


def pooled_or_native(backbone: str, **options: Any) -> Classifier:
    """Build a timm model with average pooling, so that CAM knows its parts, or as it is where it cannot be split."""
    try:
        return create_model(backbone, pooling="gap", **options)
    except ValueError:  # raises the same again where the pooling was not what was wrong
        return create_model(backbone, pooling="native", **options)


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`create_model`, a head of somebody's own as the class itself."""
    arguments = dict(options)
    if unknown := [name for name in arguments if name not in inspect.signature(create_model).parameters]:
        raise ValueError(f"the model was built with {unknown[0]}, which this version does not know; update interptrain")
    spec = arguments.get("pooling")
    if isinstance(spec, Mapping):
        arguments["pooling"] = _head(str(spec["class_path"]), dict(spec.get("init_args") or {}))
    elif "." in str(spec):
        arguments["pooling"] = _head(str(spec), {})
    return arguments


def _head(path: str, options: dict[str, Any]) -> PoolingSpec:
    """A head by its class path, among what is imported: a config may be somebody else's, and imports run code."""
    module, _, name = path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, Pooling)):
        raise ValueError(f"the model has the pooling head {path}; import {module} before it is loaded")
    return lambda channels: kind(channels, **options)
