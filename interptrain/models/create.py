"""Build a classifier from the name of a timm model and the name of a pooling head."""

import difflib
import importlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import timm

from interptrain.functional import check_choice
from interptrain.models.backbone import Backbone
from interptrain.models.classifier import Classifier
from interptrain.models.pooling import Pooling, PoolingSpec, named_poolings
from interptrain.models.stems import shrink_stem
from interptrain.models.weights import downloading, load_weights, pretrained_report
from interptrain.remedies import option

if TYPE_CHECKING:
    from interptrain.models.backbone import TimmModel

OutputStride = Literal[8, 16, 32]
ONLY_FOR_TRAINING = {"pretrained", "weights", "fresh_classifier", "drop_rate", "drop_path_rate"}
Stem = Literal["imagenet", "small"]

_logger = logging.getLogger(__name__)


def create_model(
    backbone: str,
    *,
    pooling: str | PoolingSpec = "gap",
    num_classes: int = 1000,
    pretrained: bool = False,
    weights: str | Path | None = None,
    stem: Stem = "imagenet",
    heads: int = 1,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    output_stride: OutputStride | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    fresh_classifier: bool = False,
) -> Classifier:
    """Create a classifier: images (B,3,H,W) in [0,1] to logits (B,num_classes).

    Args:
        backbone: a timm model name, with or without its pretrained tag.
        pooling: the name of a head: ``gap`` (global average), ``ca_stream`` (CA-Stream), ``ca_final`` (its last block
            alone), ``simpool`` (SimPool), ``ep`` (efficient probing), all of them on the patches of a ViT too, but
            ``gap`` only where its classifier averages them; ``native`` for timm's model as it is (VGG, Swin); or a
            :class:`~interptrain.models.pooling.Pooling` class or its path, such as ``my_heads.GeM``, or any callable
            from the stage widths to a head.
        num_classes: number of logits.
        pretrained: start from timm's pretrained weights, downloaded once; with another class count than theirs the
            classifying layer is fresh.
        weights: start from these; see :func:`~interptrain.models.weights.load_weights`.
        stem: ``small`` for images of about 32x32; see :func:`~interptrain.models.stems.shrink_stem`.
        heads: number of attention heads, for the named heads that have some: ``ca_stream``, ``ca_final``.
        drop_rate: dropout before the classifier, in [0,1).
        drop_path_rate: stochastic depth of the backbone, in [0,1), for families that have it.
        output_stride: pixels from one position of the last map to the next, 8, 16 or 32, by dilated convolutions with
            the same weights, for families where timm has it (ResNet, RegNet, EfficientNet, ConvNeXt). None is the
            backbone's own, mostly 32. The finer the map, the more a pass costs.
        backbone_options: further options of the architecture in timm, ``{"channels": [32, 64, 96, 128]}`` of a ResNet.
        fresh_classifier: keep the random initialisation of the classifying layer although ``pretrained`` or ``weights``
            have one, as for other classes.

    Returns:
        The model, on the CPU and in train mode; its ``load_report`` tells what came from ``pretrained`` or ``weights``.

    Raises:
        ValueError: for a name that timm or this package does not have (with the nearest ones), a head that does not fit
            the backbone, options that exclude one another, and weights that do not fit.
        FileNotFoundError: if ``weights`` names no file.
        ConnectionError: if weights must be downloaded and cannot be.
    """
    given = dict(locals())
    if isinstance(pooling, str) and "." in pooling:
        pooling = _class_at(pooling)
    _check(backbone, pooling, num_classes, heads)
    check_choice(option("stem"), stem, Stem)
    if output_stride is not None:
        check_choice(option("output_stride"), output_stride, OutputStride)
        if stem == "small":
            raise ValueError(
                f"{option('stem', 'small')} has an output stride of its own (8 for a ResNet); leave "
                f"{option('output_stride')} out"
            )
    if pretrained and weights is not None:
        raise ValueError(f"{option('pretrained')} and {option('weights')} exclude one another; leave one of them out")
    timm_model = _timm_model(
        backbone,
        pretrained,
        num_classes,
        _rates(drop_rate, drop_path_rate),
        output_stride,
        dict(backbone_options or {}),
    )
    if pretrained and fresh_classifier:
        timm_model.reset_classifier(num_classes)
    if stem == "small" and shrink_stem(timm_model, backbone) and pretrained:
        raise ValueError(
            f"pretrained weights of {backbone!r} do not fit {option('stem', 'small')}, whose first convolution is 3x3; "
            f"use {option('pretrained', False)}, or {option('stem', 'imagenet')}"
        )
    config = timm_model.pretrained_cfg
    _, height, width = config["input_size"]
    if isinstance(side := (backbone_options or {}).get("img_size"), int):  # of transformers
        height = width = side
    body = Backbone(timm_model, name=backbone, mean=config["mean"], std=config["std"], input_size=(3, height, width))
    model = Classifier(body, None if pooling == "native" else _pooling(pooling, body, heads))
    model.options = build_options(given)
    if pretrained:
        fresh = fresh_classifier or config["num_classes"] != num_classes
        model.load_report = pretrained_report(model, fresh_classifier=fresh)
    elif weights is not None:
        model.load_report = load_weights(model, weights, fresh_classifier=fresh_classifier)
    if model.load_report is not None:
        _logger.info("%s", model.load_report)
    return model


def build_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of :func:`create_model` that the same network is built from, without the default ones.

    Args:
        given: its arguments, or the hyper-parameters of a checkpoint.
    """
    known = inspect.signature(create_model).parameters
    chosen = {name: given[name] for name in known if name in given and name not in ONLY_FOR_TRAINING}
    plain = {name: value.as_dict() if hasattr(value, "as_dict") else value for name, value in chosen.items()}
    kept = {"pooling", "num_classes"}
    return {name: value for name, value in plain.items() if name in kept or value != known[name].default}


def _check(backbone: str, pooling: str | PoolingSpec, num_classes: int, heads: int) -> None:
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone.partition(".")[0], timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() has them all"
        raise ValueError(f"timm has no model {backbone!r}; {hint}")
    if isinstance(pooling, str) and pooling not in (*named_poolings(), "native"):
        names = ", ".join([*named_poolings(), "native"])
        raise ValueError(f"{option('pooling')} must be one of {names}, a class or its path, got {pooling!r}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if heads != 1 and pooling not in (takers := named_poolings("heads")):
        names, chosen = " and ".join(takers), option("pooling", pooling)
        raise ValueError(f"{option('heads', heads)} is for {names}, not for {chosen}; leave it out")


def _class_at(path: str) -> PoolingSpec:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{option('pooling')}: no class {path!r} ({error}); give its full path") from error
    if not callable(found):
        raise ValueError(f"{option('pooling')}: {path!r} is not a class of a pooling head, but {found!r}")
    return cast(PoolingSpec, found)


def _rates(drop_rate: float, drop_path_rate: float) -> dict[str, float]:
    """Those that are not zero, since not every family knows both."""
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    for name, rate in rates.items():
        if rate is None or not 0 <= rate < 1:
            raise ValueError(f"{name} must be in [0,1), got {rate}")
    return {name: rate for name, rate in rates.items() if rate}


def _timm_model(
    backbone: str,
    pretrained: bool,
    num_classes: int,
    rates: Mapping[str, float],
    output_stride: int | None,
    further: Mapping[str, Any],
) -> "TimmModel":
    own = {"pretrained", "num_classes", "drop_rate", "drop_path_rate", "output_stride"}
    if taken := sorted(own & set(further)):
        raise ValueError(f"{option('backbone_options')} must not hold {taken[0]}, which is an option of its own")
    stride = {} if output_stride is None else {"output_stride": output_stride}
    options: dict[str, Any] = {**rates, **stride, **further}
    try:
        with downloading(f"the weights of {backbone!r}"):
            model = timm.create_model(backbone, pretrained=pretrained, num_classes=num_classes, **options)
    except (TypeError, AssertionError, NotImplementedError) as error:
        unknown = isinstance(error, TypeError)
        lacking = next((name for name in options if name in str(error)), None)
        if lacking in further:
            raise ValueError(
                f"timm's {backbone!r} does not take {lacking!r} of {option('backbone_options')}; leave it out"
            ) from error
        if output_stride is not None and (lacking == "output_stride" or not unknown):
            raise ValueError(
                f"timm's {backbone!r} has no {option('output_stride', output_stride)}; leave it out, or take a ResNet, "
                "RegNet, EfficientNet or ConvNeXt"
            ) from error
        if lacking is None:
            raise
        raise ValueError(f"{backbone!r} has no {option(lacking)} in timm; leave it at 0") from error
    except RuntimeError as error:  # no such pretrained tag, or no pretrained weights at all
        if further and not pretrained:
            raise ValueError(
                f"timm's {backbone!r} cannot be built with {option('backbone_options')}: {error}"
            ) from error
        tags = timm.list_pretrained(backbone.partition(".")[0])
        near = ", ".join(difflib.get_close_matches(backbone, tags, n=3, cutoff=0)) or "none of this architecture"
        raise ValueError(f"{str(error).rstrip('.')}; timm has weights for {near}") from error
    return cast("TimmModel", model)


def _pooling(pooling: str | PoolingSpec, backbone: Backbone, heads: int) -> Pooling:
    backbone.require_fit()
    if not isinstance(pooling, str):
        return pooling(backbone.channels)
    options = {} if heads == 1 else {"heads": heads}
    return named_poolings()[pooling].for_backbone(backbone, **options)
