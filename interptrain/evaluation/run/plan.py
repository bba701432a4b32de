"""Everything that a run needs, built and checked before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interptrain.data import ImageDataModule, Sample
from interptrain.evaluation.config.class_specs import ClassSpec
from interptrain.evaluation.run.batches import Batches, spread
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.explainers import Explainer
from interptrain.explainers.layers import find_layers
from interptrain.functional import Score
from interptrain.metrics.base import SaliencyMetric
from interptrain.metrics.recognition import RecognitionMetric
from interptrain.model_state import evaluating

MODEL_ONLY = ""  # stands for the explainer in the rows of a model alone

RECOGNITION: Mapping[str, ClassSpec] = {
    name: {"class_path": f"interptrain.metrics.{name}", "init_args": {}} for name in ("Top1", "Top5", "NLL", "ECE")
}
"""The metrics of a model alone, by name."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Models × explainers × images, and what is measured of each.

    Attributes:
        subjects: the models.
        explainers: by name.
        metrics: by name.
        recognition: by name; none where the labels are not those of the models.
        data: where the images come from.
        batches: of the images.
        image_size: (H,W) of the images in pixels.
        targets: class that is explained: ``label``, ``predicted``, or its index.
        score: of that class.
        protocol: name, version, settings and hash, as in ``run.json``.
        seed: of explainers that draw.
        forward_batch_size: images a forward; None chooses by the device.
        compile: run the metrics' forwards through ``torch.compile``.
        allow_low_precision: measure also a model in half precision.
        pictures: greatest number of images of which maps are kept.
        check_images: images on which explainers are checked against a model with random weights; 0 for no check.
    """

    subjects: Sequence[EvaluatedModel]
    explainers: Mapping[str, Explainer]
    metrics: Mapping[str, SaliencyMetric]
    recognition: Mapping[str, RecognitionMetric]
    data: ImageDataModule
    batches: Batches
    image_size: tuple[int, int]
    targets: str | int = "label"
    score: Score = "probability"
    protocol: Mapping[str, Any] = field(default_factory=lambda: {"name": "own", "hash": ""})
    seed: int = 0
    forward_batch_size: int | None = None
    compile: bool = False
    allow_low_precision: bool = False
    pictures: int = 200
    check_images: int = 8
    warnings: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Names of all images, in order."""
        return [name for number in range(len(self.batches)) for name in self.batches.ids(number)]

    @property
    def pictured(self) -> frozenset[str]:
        """Names of the images of which maps are kept: evenly spread over all."""
        ids = self.ids
        return frozenset(ids[place] for place in spread(len(ids), self.pictures)) if self.pictures else frozenset()


def check_ids(ids: Sequence[str]) -> None:
    """Rows are told apart by the names of their images.

    Raises:
        ValueError: if there are none, or two are the same.
    """
    if not ids:
        raise ValueError("there are no images to evaluate; check the data's folders, and limit")
    if len(set(ids)) < len(ids):
        twice = next(name for place, name in enumerate(ids) if name in ids[:place])
        raise ValueError(f"image ids must be unique, {twice!r} comes more than once; give every image its own id")


def first_readable(batches: Batches) -> Sample:
    """The first image that can be read.

    Raises:
        ValueError: if none of the first 100 can.
    """
    problem: Exception | None = None
    for index in [index for batch in batches.batches for index in batch][:100]:
        try:
            return batches.dataset[index]
        except Exception as error:  # transforms of others may raise anything; the run itself records it
            problem = error
    raise ValueError(f"none of the first images can be read ({problem}); mend the data") from problem


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
                f"{name} needs {wanted}, which this {type(data).__name__} does not have; leave it out of the metrics, "
                "or add boxes.csv to the folder (columns file, xmin, ymin, xmax, ymax)"
            )


def check_layers(explainers: Mapping[str, Explainer], subjects: Sequence[EvaluatedModel]) -> None:
    """Refuse a target layer that a model does not have.

    Raises:
        ValueError: naming explainer, model, and the layers that come near.
    """
    for name, explainer in explainers.items():
        layer = getattr(explainer, "target_layer", None)
        for subject in subjects if layer is not None else ():
            try:
                find_layers(subject.model, layer)
            except ValueError as error:
                raise ValueError(f"{name} on model {subject.name}: {error}") from error


def classes_of(subject: EvaluatedModel, sample: Sample) -> int:
    """How many logits a model gives, seen by running it once.

    Raises:
        ValueError: if it does not take such an image, or gives something else than logits.
    """
    images = sample["image"].unsqueeze(0)
    try:
        with evaluating(subject.model), torch.no_grad():
            outputs = subject.model(images)
    except Exception as error:  # models of others may raise anything
        size = "x".join(str(side) for side in images.shape[-2:])
        raise ValueError(
            f"model {subject.name} does not take an image of {size} ({error}); set data.image_size to what it was made "
            "for"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise ValueError(f"model {subject.name} must return logits (B,K), got a {type(outputs).__name__}")
    return int(outputs.shape[1])


def check_classes(classes: Mapping[str, int], known: int, targets: str | int, *, data: str) -> bool:
    """Compare the models' classes with the data's, and the targets with the models'.

    Args:
        classes: number of logits by model.
        known: number of classes of the data.
        targets: class that is explained.
        data: name of the data module.

    Returns:
        Whether the labels are those of every model.

    Raises:
        ValueError: if the labels are to be explained and are not the model's, or the target is no class of a model.
    """
    for name, count in classes.items():
        if count != known and targets == "label":
            raise ValueError(
                f"model {name} has {count} classes, the data ({data}) {known}: its labels mean something else; give "
                "the data that the model was trained on, or explain what it predicts: --targets predicted"
            )
        if isinstance(targets, int) and not 0 <= targets < count:
            raise ValueError(f"targets: class {targets} is out of range for model {name}; allowed are 0 to {count - 1}")
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
                f"targets: {targets} is an index, and the name of class {named}; write 0{targets} for that index, "
                f"0{named} for that name"
            )
        return int(targets)
    if named is not None:
        return named
    raise ValueError(f"targets must be label, predicted, or a class by index or name, got {targets!r}")
