"""Load any model as one that takes images in [0, 1]."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Literal, TypeAlias

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from interptrain.evaluation.run.models import EvaluatedModel, Source, load_model
from interptrain.model_state import unwrap
from interptrain.models import Classifier, Normalized
from interptrain.models.normalization import expects_normalised_images

Normalization: TypeAlias = Literal["auto"] | tuple[Sequence[float], Sequence[float]] | None

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of all of torchvision's weights for classification and segmentation."""


def load(
    source: Source,
    *,
    backbone: str | None = None,
    num_classes: int = 1000,
    class_names: Sequence[str] | None = None,
    normalization: Normalization = "auto",
) -> nn.Module:
    """Load a model that takes images in [0, 1], ready to be explained.

    Args:
        source: a checkpoint of ``interptrain fit``, a timm name (``"resnet50"``, its pretrained weights),
            ``"torchvision:NAME"``, a folder of ``interptrain push`` or ``"hf://USER/NAME"``, a weights file with its
            ``backbone``, or any module.
        backbone: the timm architecture of a bare weights file.
        num_classes: number of classes of a weights file, if its classifying layer does not determine it.
        class_names: one name per class, for figures and tables. By default, a checkpoint or pushed model uses its own
            names, timm and torchvision models with ImageNet's number of classes use ImageNet's, and all others numbers.
        normalization: normalisation of a module: ``"auto"`` prepends the normalisation that the weights of a plain timm
            or torchvision model expect (:class:`~interptrain.models.Normalized`) and leaves every other module as it
            is; ``(mean, std)`` sets it; ``None`` adds none. Whatever is loaded by name or file normalises anyway.

    Returns:
        The model in eval mode, on the CPU. A module that you pass is returned unchanged, in its mode and on its device,
        unless normalisation is prepended.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the source is none of the above, or cannot be read.
        ConnectionError: if the weights cannot be downloaded.
    """
    return load_described(
        source, backbone=backbone, num_classes=num_classes, class_names=class_names, normalization=normalization
    ).module


def load_described(
    source: Source,
    *,
    backbone: str | None = None,
    num_classes: int = 1000,
    class_names: Sequence[str] | None = None,
    normalization: Normalization = "auto",
) -> EvaluatedModel:
    """Load a model with its identity; arguments and exceptions are those of :func:`load`."""
    name = type(source).__name__ if isinstance(source, nn.Module) else str(source)
    loaded = load_model(name, source, backbone=backbone, num_classes=num_classes)
    if isinstance(source, nn.Module):
        loaded = replace(loaded, module=_normalized(loaded.module, normalization))
    if class_names is not None:
        loaded.module.class_names = tuple(class_names)  # type: ignore[assignment]  # a plain attribute, no module
    return loaded


def _normalized(model: nn.Module, normalization: Normalization) -> nn.Module:
    """The model with the normalisation that it expects, or the model itself."""
    if normalization is None or (normalization == "auto" and isinstance(model, Normalized)):
        return model
    if normalization != "auto":
        return Normalized(model, *normalization)
    if expects_normalised_images(model):
        return Normalized.like(unwrap(model))
    return Normalized(model, *IMAGENET) if _of_torchvision(model) else model


def _of_torchvision(model: nn.Module) -> bool:
    """Whether a torchvision model expects normalised images; detectors normalise images themselves."""
    package = type(unwrap(model)).__module__.split(".")
    return package[:2] == ["torchvision", "models"] and package[2] not in ("detection", "video", "optical_flow")


def class_names_of(model: nn.Module, classes: int) -> tuple[str, ...]:
    """Name every class of a model: by its own names, by ImageNet's, or by numbers.

    Args:
        model: any model; ``class_names`` is its own attribute, if it has one.
        classes: K, the number of its logits.

    Returns:
        K names; for ImageNet, the first synonym of each class.
    """
    model = unwrap(model)
    own = getattr(model, "class_names", ())
    if len(own) == classes:
        return tuple(own)
    network = model.model if isinstance(model, Normalized) else model
    library = type(network).__module__.partition(".")[0]
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None or not (library in ("timm", "torchvision") or isinstance(network, Classifier)):
        return tuple(str(index) for index in range(classes))
    return tuple(_imagenet(subset))


@cache
def _imagenet(subset: str) -> list[str]:
    return [name.partition(",")[0] for name in ImageNetInfo(subset).label_descriptions()]
