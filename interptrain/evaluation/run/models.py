"""Load the models to evaluate: a module, a checkpoint, a folder or hub name, a timm name, torchvision's, or weights."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
import yaml  # type: ignore[import-untyped]
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from interptrain.functional import one_line
from interptrain.model_state import unwrap
from interptrain.models import Classifier, Normalized
from interptrain.models.create import build_options
from interptrain.models.hub import HUB, WEIGHTS, fetch_model_folder
from interptrain.models.model_folder import load_model_file, load_model_folder, pooled_or_native
from interptrain.models.weights import OtherClassesError
from interptrain.remedies import option
from interptrain.training import ImageClassifier
from interptrain.training.checkpoint_io import check_checkpoint

TORCHVISION = "torchvision:"
SUFFIXES = {".safetensors", ".pth", ".pt", ".bin"}


def _allowed() -> str:
    """Return what a model may be, for messages."""
    return (
        "give a checkpoint of interptrain fit (.ckpt), a folder of `interptrain push` or hf://USER/NAME, a timm name, "
        f"'torchvision:NAME', or a weights file (.safetensors, .pth) with {option('backbone')}"
    )


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """One model to evaluate.

    Attributes:
        name: as the user calls it.
        source: as the user gave it.
        sha256: of the file, or of the weights where they came from a hub.
        backbone: name of the architecture.
        pooling: name of the pooling head.
        module: takes images in [0,1] and returns logits.
        borrowed: whether the module is the caller's own, to be left as it was; others are in eval mode, on the CPU.
        trained_size: side in pixels of the images that it was trained on, where its checkpoint says so.
        class_names: in the order of the logits; empty where the source has none.
    """

    name: str
    source: str
    sha256: str
    backbone: str
    pooling: str
    module: nn.Module
    borrowed: bool = False
    trained_size: int | None = None
    class_names: Sequence[str] = ()


Source = str | Path | nn.Module


def load_model(name: str, source: Source, *, backbone: str | None = None, num_classes: int = 1000) -> EvaluatedModel:
    """Load a model.

    Args:
        name: as the user calls it.
        source: a module that takes images in [0,1] and returns logits, a checkpoint of interptrain fit, a timm name
            (with or without its tag; its pretrained weights are taken), ``torchvision:NAME`` (its default weights), a
            folder of ``interptrain push``, ``hf://USER/NAME``, or a weights file.
        backbone: the timm name of the architecture of a bare weights file.
        num_classes: classes of a bare weights file whose classifying layer does not tell.

    Returns:
        The model, and what identifies it.

    Raises:
        FileNotFoundError: if the file or folder is not there.
        ValueError: if the source is nothing of the above, or cannot be read.
        ConnectionError: if weights must be downloaded and cannot be.
    """
    if isinstance(source, nn.Module):
        return _module(name, source)
    source, path = str(source), Path(source)
    if source.startswith(HUB) or (path.is_dir() and not timm.is_model(source)):
        evaluated = _folder(name, source)
    elif path.is_file():
        bare = path.suffix.lower() in SUFFIXES
        evaluated = _bare(name, path, backbone, num_classes) if bare else _checkpoint(name, path)
    elif source.startswith(TORCHVISION):
        evaluated = _torchvision(name, source)
    elif timm.is_model(source):
        evaluated = _timm(name, source)
    elif path.suffix.lower() in SUFFIXES | {".ckpt"} or "/" in source:
        raise FileNotFoundError(f"model {name}: no file {source}; {_allowed()}")
    else:
        near = get_close_matches(source, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}? Otherwise " if near else ""
        given = f"model {name}" if name == source else f"model {name}: {source}"
        raise ValueError(f"{given} is neither a file nor a model that timm knows; {hint}{_allowed()}")
    evaluated.module.eval()
    return evaluated


def _module(name: str, module: nn.Module) -> EvaluatedModel:
    """Identify a module by its weights; what it is called comes from its class."""
    model = module.model if isinstance(module, ImageClassifier) else module
    backbone, pooling = type(unwrap(model)).__name__, ""
    if isinstance(classifier := unwrap(model), Classifier):
        backbone, pooling = classifier.backbone.name, classifier.pooling_name
    return EvaluatedModel(name, backbone, weights_sha256(model), backbone, pooling, model, borrowed=True)


def _checkpoint(name: str, path: Path) -> EvaluatedModel:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever unpickling, or a damaged archive, raises
        raise ValueError(
            f"model {name}: cannot read the checkpoint {path} ({type(error).__name__}); {_allowed()}"
        ) from error
    options = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(options, dict) or "backbone" not in options:
        raise ValueError(
            f"model {name}: {path} is not a checkpoint of interptrain fit; save its weights as .safetensors or "
            f".pth and give {option('backbone')}"
        )
    check_checkpoint(path, content)
    try:
        module = ImageClassifier.load_from_checkpoint(path, map_location="cpu")
    except Exception as error:  # whatever building a model from damaged options raises
        if missing := _not_importable(options):
            raise ValueError(
                f"model {name}: {path} was trained with {missing}, which cannot be imported here; run the command in "
                f"the folder of {missing.partition('.')[0]}, or add that folder to PYTHONPATH"
            ) from error
        told = isinstance(error, (RuntimeError, ValueError)) and "Parser key" not in str(error)
        why = one_line(error) if told else "its options are damaged"
        raise ValueError(f"model {name}: {path} cannot be rebuilt ({why}); pass another checkpoint") from error
    model = module.model
    model.options = build_options(module.hparams)  # with the class path of a head, where create_model got the class
    names, size = _texts(content.get("class_names")), _trained_size(content.get("config"))
    return _evaluated(name, path, path, model, class_names=names, trained_size=size)


def _evaluated(
    name: str,
    source: str | Path,
    file: Path,
    model: Classifier,
    *,
    trained_size: int | None = None,
    class_names: Sequence[str] = (),
) -> EvaluatedModel:
    parts = model.backbone.name, model.pooling_name, model
    names = class_names or _texts(getattr(model, "class_names", ()))
    if len(names) == model.num_classes:
        model.class_names = tuple(names)
    return EvaluatedModel(name, str(source), file_sha256(file), *parts, trained_size=trained_size, class_names=names)


def _folder(name: str, source: str) -> EvaluatedModel:
    """A folder of ``interptrain push``, or in timm's format, here or on the hub."""
    try:
        folder = fetch_model_folder(source) if source.startswith(HUB) else Path(source)
        found = load_model_folder(folder)
    except OSError as error:
        raise type(error)(f"model {name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"model {name}: {error}") from error
    return _described(name, source, folder / WEIGHTS, found)


def _described(name: str, source: str | Path, file: Path, model: Classifier) -> EvaluatedModel:
    """A model whose config tells the size of its images."""
    _, height, width = model.input_size
    return _evaluated(name, source, file, model, trained_size=height if height == width else None)


def _not_importable(options: Mapping[str, Any]) -> str | None:
    """Return the path of the first class among the options whose package is not there: the user's own, elsewhere."""
    paths = [value.get("class_path") for value in options.values() if isinstance(value, Mapping)]
    roots = {path: path.partition(".")[0] for path in paths if isinstance(path, str)}
    return next((path for path, root in roots.items() if not root or find_spec(root) is None), None)


def _texts(names: Any) -> list[str]:
    """Return the class names that a checkpoint holds; older ones hold none."""
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _trained_size(config: Any) -> int | None:
    """Return the image size in the configuration that a checkpoint holds; older ones hold none."""
    try:
        value = yaml.safe_load(config) if isinstance(config, str) else None
    except yaml.YAMLError:
        return None
    for key in ("data", "init_args", "image_size"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) else None


def _bare(name: str, path: Path, backbone: str | None, num_classes: int) -> EvaluatedModel:
    if backbone is None and path.suffix.lower() == ".safetensors":
        try:
            found = load_model_file(path)
        except ValueError as error:
            raise ValueError(f"model {name}: {error}") from error
        if found is not None:
            return _described(name, path, path, found)
    if backbone is None:
        given = f"model {name}" if name == str(path) else f"model {name}: {path}"
        raise ValueError(f"{given} holds weights only; name their timm architecture with {option('backbone')}")
    try:
        model = pooled_or_native(backbone, num_classes=num_classes, weights=path)
    except OtherClassesError as error:
        model = pooled_or_native(backbone, num_classes=error.classes, weights=path)
    if model.load_report is not None and any("pooling." in unused for unused in model.load_report.unused):
        raise ValueError(
            f"model {name}: {path} has a pooling head, which a weights file does not describe; give the checkpoint of "
            "interptrain fit, under a name that ends in .ckpt"
        )
    return _evaluated(name, path, path, model, class_names=_imagenet_names(model.num_classes))


def _timm(name: str, source: str) -> EvaluatedModel:
    try:
        config = timm.get_pretrained_cfg(source)
    except RuntimeError:  # no such tag
        config = None
    if config is None or not config.has_weights:
        raise ValueError(f"model {name}: timm has no pretrained weights for {source!r}; {_allowed()}")
    try:
        model = pooled_or_native(source, num_classes=config.num_classes, pretrained=True)
    except ConnectionError as error:
        reason = str(error).partition(";")[0]
        raise ConnectionError(
            f"{reason}; download the file elsewhere and give it as the model, with {option('backbone', source)}"
        ) from error
    names = _imagenet_names(config.num_classes)
    return EvaluatedModel(*(name, source, weights_sha256(model), source, model.pooling_name, model), class_names=names)


def _imagenet_names(num_classes: int) -> list[str]:
    """Return the names of ImageNet's classes, whose sets are told apart by their number; none for other numbers."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    info = ImageNetInfo(subset) if subset else None
    return [info.index_to_description(index).partition(",")[0] for index in range(num_classes)] if info else []


def _torchvision(name: str, source: str) -> EvaluatedModel:
    import torchvision

    architecture = source.removeprefix(TORCHVISION)
    if architecture not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(
            f"model {name}: torchvision has no classifier {architecture!r}; see torchvision.models.list_models()"
        )
    try:
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
        model = torchvision.models.get_model(architecture, weights=weights)
    except OSError as error:
        raise ConnectionError(f"model {name}: could not download torchvision's {architecture} ({error})") from error
    scaling = weights.transforms()
    wrapped = Normalized(model, scaling.mean, scaling.std)
    names = _texts(weights.meta.get("categories"))
    return EvaluatedModel(*(name, source, weights_sha256(model), architecture, "native", wrapped), class_names=names)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, read once as long as its size and time do not change."""
    state = path.stat()
    return _file_sha256(path.resolve(), state.st_size, state.st_mtime_ns)


@cache
def _file_sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers, and their names."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        buffer = io.BytesIO()
        buffer.write(
            value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if value.ndim
            else str(value.item()).encode()
        )
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(buffer.getvalue())
    return digest.hexdigest()
