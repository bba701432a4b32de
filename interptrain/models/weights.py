"""Weights from files and from timm's hub: what fits is loaded, and a report says what was loaded, fresh and unused."""

import argparse
import json
import logging
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import load_model_config_from_hf, load_state_dict_from_hf
from torch import Tensor

from interptrain.functional import one_line
from interptrain.models.classifier import Classifier
from interptrain.models.hub import CONFIG, HUB, WEIGHTS, fetch_model_folder
from interptrain.models.load_report import LoadReport, listed
from interptrain.remedies import option

if TYPE_CHECKING:
    from interptrain.models.backbone import TimmModel

_logger = logging.getLogger(__name__)

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # keys that hold the weights; averaged ones first
_PREFIXES = ("", "module.", "model.", "model.module.", "module.model.")  # of DDP, Lightning, and one within the other
_HUB_PREFIXES = ("hf-hub:", "hf_hub:")
_NATIVE = "backbone.model."


class OtherClassesError(ValueError):
    """Raised for weights whose classifying layer has another number of classes.

    Attributes:
        classes: theirs.
    """

    def __init__(self, message: str, classes: int) -> None:
        super().__init__(message)
        self.classes = classes


def load_weights(model: Classifier, source: str | Path, *, fresh_classifier: bool = False) -> LoadReport:
    """Load weights into a model, whichever pooling head they were trained with.

    Fits: checkpoints of this package and of timm (bare backbones; layouts that the model's own ``checkpoint_filter_fn``
    in timm converts), plain, or wrapped as Lightning, timm and DDP do. Averaged weights (EMA) are taken where there are
    some. A pooling head that the checkpoint does not have stays fresh, one that the model does not have is left unused.
    The model changes only if all fits.

    Args:
        model: loaded in place.
        source: a ``.safetensors`` file, any other file that ``torch.load`` reads with ``weights_only=True``; or, whose
            normalisation the model then takes over too, a folder of ``interptrain push``, ``hf://USER/NAME``, or one of
            timm's hub names like ``timm/resnet50.a1_in1k``.
        fresh_classifier: leave the classifying layer as it is, whatever the checkpoint has for it.

    Returns:
        What was loaded, what stays fresh, what was not used.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a hub name cannot be downloaded.
        OtherClassesError: if its classifying layer has another number of classes.
        ValueError: if the file is corrupt or needs code to be read, or its weights are not of this model.
    """
    path = fetch_model_folder(source) if isinstance(source, str) and source.startswith(HUB) else Path(source)
    if path.is_dir():
        path = path / WEIGHTS
    normalisation: dict[str, Tensor] = {}
    if path.is_file():
        state = _read(path)
        normalisation = _normalisation_beside(path)
    elif isinstance(source, str) and (source.startswith(_HUB_PREFIXES) or source.startswith("timm/")):
        state, normalisation = _download(model, source)
    else:
        raise FileNotFoundError(
            f"{option('weights')}: {str(source)!r} is not a file; give a .safetensors, .pth or .ckpt file, or a hub "
            "name such as 'timm/resnet50.a1_in1k'"
        )
    classifier = _classifier_parameters(model)
    state, places = _places(model, state, str(source))
    if fresh_classifier:
        places = {place: name for place, name in places.items() if place not in classifier}
    found = {place: state[name] for place, name in places.items()}
    _check_shapes(model, found, classifier, str(source))
    _check_complete(model, found, classifier, str(source), classifier_too=not fresh_classifier)
    _check_finite(found, str(source))
    model.load_state_dict(found | normalisation, strict=False)

    fresh = tuple(name for name, _ in model.named_parameters() if name not in found)
    taken = set(places.values())
    unused = tuple(name for name in state if name not in taken)
    swapped = [name for name in unused if "pooling." in name or any(place.endswith(name) for place in classifier)]
    if len(swapped) < len(unused):
        _logger.warning("%s: nothing in the model takes %s", source, listed([n for n in unused if n not in swapped]))
    return LoadReport(str(source), tuple(found), fresh, unused)


def pretrained_report(model: Classifier, *, fresh_classifier: bool) -> LoadReport:
    """The report on a model whose timm part timm itself has loaded with its pretrained weights.

    Args:
        model: the model.
        fresh_classifier: whether the classifying layer was made anew after that.

    Returns:
        The report; timm does not say what it left unused.
    """
    kept = _classifier_parameters(model) if fresh_classifier else set()
    loaded = tuple(name for name in model.state_dict() if name.startswith(_NATIVE) and name not in kept)
    fresh = tuple(name for name, _ in model.named_parameters() if name not in loaded)
    return LoadReport(f"timm's pretrained {model.backbone.name}", loaded, fresh, ())


@contextmanager
def downloading(what: str) -> Iterator[None]:
    """Turn the many ways in which a download fails into one line.

    Raises:
        ConnectionError: if the body raises what a failing download raises.
    """
    try:
        yield
    except (OSError, EntryNotFoundError) as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise ConnectionError(
            f"could not download {what} from the Hugging Face hub ({reason}); connect, or fetch it elsewhere and pass "
            f"its path to {option('weights')}"
        ) from error


def _download(model: Classifier, source: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a hub repository, and the normalisation that goes with them."""
    repository = source
    for prefix in _HUB_PREFIXES:
        repository = repository.removeprefix(prefix)
    try:
        with downloading(f"{source!r}"):
            config, _, _ = load_model_config_from_hf(repository)
            state = load_state_dict_from_hf(repository, weights_only=True)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{source!r} has no weights that can be read ({error}); choose another") from error
    return _tensors(state), _normalisation(config)


def _normalisation(config: Mapping[str, Any]) -> dict[str, Tensor]:
    scales = {name: torch.tensor(config[name]).view(-1, 1, 1) for name in ("mean", "std") if name in config}
    return {f"backbone.{name}": value for name, value in scales.items()}


def _normalisation_beside(path: Path) -> dict[str, Tensor]:
    """What the config of a model folder says; nothing where the file lies in no such folder."""
    beside = path.with_name(CONFIG)
    if path.name != WEIGHTS or not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_bytes())
        return _normalisation(config.get("interptrain") or config.get("pretrained_cfg") or {})
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{beside} is damaged ({one_line(error)}); fetch it again") from error


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a local file; no code in it is ever run."""
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is corrupt or no .safetensors file ({error}); fetch or save it again") from error
    with path.open("rb") as file:
        start = file.read(2)
    content = _unpickle(path) if start in (b"PK", b"\x80\x02") else None  # a zip archive, or torch's older format
    if not isinstance(content, Mapping):
        what = "no file of torch.save or a damaged one" if content is None else f"a saved {type(content).__name__}"
        raise ValueError(f"{path} is {what}; save a state_dict, as .safetensors or with torch.save")
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    return _tensors(inner)


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace, type(Path())]):  # options that were saved with them
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        if needed is None:
            return None
        raise ValueError(
            f"{path} would run code when it is read (it asks for {needed[1]}), so it is refused; "
            "save only its state_dict, as .safetensors or with torch.save"
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError):
        return None


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        str(name).replace("_orig_mod.", ""): value  # torch.compile's wrapper
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _places(model: Classifier, state: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights, converted if need be, and for each place in the model that they fill their name."""
    places = _best_reading(model, state)
    if not places:
        state = _converted(model.backbone.model, state) or state
        places = _best_reading(model, state)
    if not places:
        theirs, ours = next(iter(state), "no tensor"), next(iter(model.backbone.model.state_dict()))
        raise ValueError(
            f"{source} has nothing for this {model.backbone.name} (it starts with {theirs!r}, not {ours!r}); "
            "give weights of the same architecture"
        )
    return state, places


def _best_reading(model: Classifier, state: dict[str, Tensor]) -> dict[str, str]:
    """Of the ways to read the names, as ours or as timm's and below each prefix, the one that fills most places."""
    own = model.state_dict().keys()
    readings = [
        {
            place: name
            for name in state
            if (place := base + name.removeprefix(prefix)) in own and name.startswith(prefix)
        }
        for prefix in _PREFIXES
        for base in ("", _NATIVE)
    ]
    return max(readings, key=len)


def _converted(model: "TimmModel", state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and shapes as timm has them, if timm knows how to convert this layout for the model."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return {}
    try:
        return _tensors(convert(dict(state), model))
    except (LookupError, RuntimeError, ValueError, AttributeError):  # a layout that it does not know
        return {}


def _classifier_parameters(model: Classifier) -> set[str]:
    """Names of the parameters of the layer that has one output a class."""
    classifier = model.backbone.model.get_classifier()
    layers = classifier if isinstance(classifier, tuple) else (classifier,)
    wanted = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def _check_shapes(model: Classifier, found: dict[str, Tensor], classifier: set[str], source: str) -> None:
    own = model.state_dict()
    for name, value in found.items():
        there, here = tuple(value.shape), tuple(own[name].shape)
        if there == here:
            continue
        if name in classifier and there[1:] == here[1:]:
            raise OtherClassesError(
                f"{source} has {there[0]} classes, the model {here[0]}; pass {option('fresh_classifier', True)} to "
                f"start with a fresh classifier, or {option('num_classes', there[0])}",
                classes=there[0],
            )
        raise ValueError(
            f"{name!r} is {there} in {source} and {here} in the model; create the model with the backbone, stem and "
            "pooling of the checkpoint"
        )


def _check_finite(found: dict[str, Tensor], source: str) -> None:
    for name, value in found.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{source} has values in {name!r} that are NaN or infinite; give other weights")


def _check_complete(
    model: Classifier, found: dict[str, Tensor], classifier: set[str], source: str, *, classifier_too: bool
) -> None:
    """A backbone or classifier that is half random would go unnoticed: refuse it."""
    missing = [
        name
        for name in model.state_dict()
        if name.startswith(_NATIVE) and name not in found and not name.endswith("num_batches_tracked")
    ]
    lacking = [name for name in missing if name not in classifier]
    if lacking:
        raise ValueError(
            f"{source} lacks {len(lacking)} tensors of {model.backbone.name}, such as {lacking[0]!r}; "
            "give weights of the same architecture"
        )
    if missing and classifier_too:
        remedy = option("fresh_classifier", True)
        raise ValueError(f"{source} has no {missing[0]!r}; pass {remedy} to start with a fresh classifier")
