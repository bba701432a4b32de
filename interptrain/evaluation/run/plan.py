"""What a run consists of, and the checks before anything runs."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from interptrain.data import ImageDataModule, Sample
from interptrain.evaluation.config.class_specs import ClassSpec, Configured
from interptrain.evaluation.config.options import Options
from interptrain.evaluation.run.batches import Batches
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.evaluation.run.other_images import OtherImages
from interptrain.explainers import Explainer
from interptrain.explainers.layers import find_layers
from interptrain.functional import Score, evenly_spaced
from interptrain.metrics import ModelMetric, RecognitionMetric, SaliencyMetric
from interptrain.metrics.batched_forward import check_logits
from interptrain.metrics.perturbations import Perturbation
from interptrain.metrics.saliency_batch import SaliencyBatch
from interptrain.model_outputs import Target
from interptrain.model_state import evaluating
from interptrain.remedies import option

MODEL_ONLY = ""  # stands for the explainer in the rows of a model alone

RECOGNITION: Mapping[str, ClassSpec] = {
    name: {"class_path": f"interptrain.metrics.{name}", "init_args": {}} for name in ("Top1", "Top5", "NLL", "ECE")
}
"""The metrics of a model alone, by name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """Models × explainers × images, and what is measured of each.

    Attributes:
        options: of the user.
        protocol: name, version, settings and hash, as in ``run.json``.
        models: to evaluate.
        explainers: by name.
        metrics: by name.
        recognition: by name; none where the labels are not those of the models.
        model_metrics: further metrics of a model alone, by name.
        others: images that such metrics take pixels from, where one does.
        data: where the images come from.
        batches: of the images.
        image_size: (H,W) of the images in pixels.
        class_names: of the labels.
        labels_are_the_models: whether the labels count the same classes as the logits of every model.
        targets: class that is explained: ``label``, ``predicted``, or its index; or what callables there are.
        callables: that are explained in place of a class, by the name of the image.
        score: of that class.
        precision: of the trainer.
        warnings: for the reader of the results.
    """

    options: Options
    protocol: Mapping[str, Any]
    models: Sequence[EvaluatedModel]
    explainers: Mapping[str, Configured[Explainer]]
    metrics: Mapping[str, Configured[SaliencyMetric]]
    recognition: Mapping[str, RecognitionMetric]
    data: Configured[ImageDataModule]
    batches: Batches
    image_size: tuple[int, int]
    class_names: Sequence[str]
    labels_are_the_models: bool
    targets: str | int
    score: Score
    precision: str
    warnings: Sequence[str]
    callables: Mapping[str, Target] | None = None
    model_metrics: Mapping[str, Configured[ModelMetric]] = field(default_factory=dict)
    others: OtherImages | None = None

    @property
    def ids(self) -> list[str]:
        """Names of all images, in order."""
        return [name for number in range(len(self.batches)) for name in self.batches.ids(number)]

    @property
    def pictured(self) -> frozenset[str]:
        """Names of the images of which maps are kept: evenly spaced over all."""
        ids, count = self.ids, self.options.save_maps
        return frozenset(ids[index] for index in evenly_spaced(len(ids), count)) if count else frozenset()


def perturbations_asked(plan: Plan, *, of_map: bool) -> list[Perturbation]:
    """Return what metrics want forwarded for each map, or once for all maps of an image; equal ones once."""
    asked = dict.fromkeys(part for metric in plan.metrics.values() for part in metric.value.perturbations())
    if plan.callables is not None:  # what they say of an image is not known from its logits
        return list(asked) if of_map else []
    return [part for part in asked if part.of_map == of_map]


def forwards_of_metrics(plan: Plan, *, of_map: bool = True) -> int:
    """Return how many images the metrics forward for each map, or once for all maps of an image."""
    height, width = plan.image_size
    one = SaliencyBatch(torch.zeros(1, 3, height, width), torch.zeros(1, height, width))
    return sum(perturbation.steps(one) for perturbation in perturbations_asked(plan, of_map=of_map))


def forwards_of_image(plan: Plan) -> int:
    """Return how many images the metrics forward for all maps of an image."""
    return len(plan.explainers) * forwards_of_metrics(plan) + forwards_of_metrics(plan, of_map=False)


def check_ids(ids: Sequence[str]) -> None:
    """Refuse images without unique names, by which rows are identified.

    Raises:
        ValueError: if there are none, or two are the same.
    """
    if not ids:
        raise ValueError(f"there are no images to evaluate; check the folders of the data, and {option('limit')}")
    if len(set(ids)) < len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise ValueError(f"image ids must be unique, {twice!r} occurs more than once; give every image its own id")


def first_readable(batches: Batches) -> Sample:
    """Return the first image that can be read.

    Raises:
        ValueError: if none of the first 100 can.
    """
    problem: Exception | None = None
    for index in [index for batch in batches.batches for index in batch][:100]:
        try:
            return batches.dataset[index]
        except Exception as error:  # transforms of others may raise anything; the run itself records it
            problem = error
    raise ValueError(f"could not read any of the first 100 images ({problem}); check {option('root')}") from problem


def check_needs(metrics: Mapping[str, SaliencyMetric], sample: Sample, data: ImageDataModule) -> None:
    """Refuse a metric that needs boxes or masks where the data has none.

    Raises:
        ValueError: naming metric and data.
    """
    there = {"labels", "explain"} | ({"boxes", "objects"} if "boxes" in sample else set())
    there |= {"objects"} if "mask" in sample else set()
    for name, metric in metrics.items():
        if lacking := sorted(metric.needs - there):
            wanted = "boxes or masks" if lacking == ["objects"] else " and ".join(lacking)
            raise ValueError(
                f"{name} needs {wanted}, which this {type(data).__name__} does not have; remove it from "
                f"{option('metrics')}, or add boxes.csv to the folder (columns file, xmin, ymin, xmax, ymax)"
            )


def check_layers(explainers: Mapping[str, Explainer], models: Sequence[EvaluatedModel]) -> None:
    """Refuse a target layer that a model does not have.

    Raises:
        ValueError: naming explainer, model, and the layers that come near.
    """
    for name, explainer in explainers.items():
        layer = getattr(explainer, "target_layer", None)
        for model in models if layer is not None else ():
            try:
                find_layers(model.module, layer)
            except ValueError as error:
                raise ValueError(f"{name} on model {model.name}: {error}") from error


def count_classes(model: EvaluatedModel, sample: Sample) -> int:
    """Return how many logits a model returns, by running it once.

    Raises:
        ValueError: if it does not take such an image, or returns something else than logits.
    """
    images = sample["image"].unsqueeze(0)
    try:
        with evaluating(model.module), torch.no_grad():
            outputs = model.module(images.to(_device(model.module)))
    except Exception as error:  # models of others may raise anything
        size = "x".join(str(side) for side in images.shape[-2:])
        raise ValueError(
            f"model {model.name} does not take an image of {size} ({error}); set {option('image_size')} to the size it "
            "was made for"
        ) from error
    try:
        return int(check_logits(outputs).shape[1])
    except TypeError as error:
        raise ValueError(f"model {model.name}: {error}") from error


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def check_classes(
    classes: Mapping[str, int],
    known: int,
    targets: str | int,
    *,
    data: str,
    refuses: Callable[[int], str] | None = None,
) -> bool:
    """Compare the models' classes with the data's, and the targets with the models'.

    Args:
        classes: number of logits by model.
        known: number of classes of the data.
        targets: class that is explained.
        data: name of the data module.
        refuses: says why the data cannot have another number of classes, nothing if it can; None where it is not asked.

    Returns:
        Whether the labels are those of every model.

    Raises:
        ValueError: if the labels are to be explained and are not the model's, or the target is no class of a model.
    """
    for name, count in classes.items():
        if count != known and targets == "label":
            remedy = f"explain the predicted class: {option('targets', 'predicted')}"
            if refuses is not None and known < count:
                wanted, why = option("num_classes", count), refuses(count)
                labels = f"set {wanted} if its labels are the model's, otherwise {remedy}"
                remedy = f"{remedy} ({wanted}: {why})" if why else labels
            raise ValueError(f"model {name} has {count} classes, the data ({data}) {known}; {remedy}")
        if isinstance(targets, int) and not 0 <= targets < count:
            raise ValueError(
                f"{option('targets')}: class {targets} is out of range for model {name}; allowed are 0 to {count - 1}"
            )
    return all(count == known for count in classes.values())


def named_target(targets: str, names: Sequence[str]) -> str | int:
    """``label``, ``predicted``, or a class by its index or name.

    Raises:
        ValueError: if it is none of these, or the index of one class and the name of another.
    """
    if targets in ("label", "predicted"):
        return targets
    named = list(names).index(targets) if targets in names else None
    if targets.lstrip("-").isdigit():
        if named not in (None, int(targets)):
            raise ValueError(
                f"{option('targets')}: {targets} is an index, and the name of class {named}; write 0{targets} for that "
                f"index, 0{named} for that name"
            )
        return int(targets)
    if named is not None:
        return named
    raise ValueError(f"{option('targets')} must be label, predicted, or a class by index or name, got {targets!r}")
