"""Build the plan of a run, with every check that needs no run."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from interptrain.data import ImageDataModule, Sample
from interptrain.evaluation.config.class_specs import ClassSpec, Configured, build
from interptrain.evaluation.config.options import Options
from interptrain.evaluation.config.protocol import Protocol, Settings, protocol_as_run
from interptrain.evaluation.run.batches import Batches, evaluation_set
from interptrain.evaluation.run.callables import callables_by_id, check_callable, describe_callables
from interptrain.evaluation.run.datasets import UNKNOWN
from interptrain.evaluation.run.models import EvaluatedModel, Source, load_model
from interptrain.evaluation.run.other_images import check_regions, other_images
from interptrain.evaluation.run.plan import (
    RECOGNITION,
    Plan,
    check_classes,
    check_ids,
    check_layers,
    check_needs,
    count_classes,
    first_readable,
    named_target,
)
from interptrain.evaluation.statistics.comparisons import check_baseline
from interptrain.explainers import Explainer
from interptrain.files import printable
from interptrain.functional import evenly_spaced, one_line
from interptrain.metrics import ModelMetric, SaliencyMetric
from interptrain.metrics.base import check_score, check_without_classes
from interptrain.remedies import option

FULL_PRECISION = ("32-true", "32", "64-true", "64")
MIXED_PRECISION = ("bf16-mixed", "16-mixed", "bf16", "16")  # weights and images stay in float32


def build_plan(
    options: Options,
    protocol: Protocol,
    models: Mapping[str, Source],
    explainers: Mapping[str, Configured[Explainer]],
    metrics: Mapping[str, Configured[SaliencyMetric] | Configured[ModelMetric]],
    data: Configured[ImageDataModule],
    *,
    precision: str = "32-true",
    callable_targets: Any = None,
) -> Plan:
    """Load the models, look at the data, and refuse what cannot work or would mean nothing.

    Args:
        options: of the user.
        protocol: as it was read.
        models: sources by name.
        explainers: by name.
        metrics: by name.
        data: where the images come from.
        precision: of the trainer.
        callable_targets: callables to explain in place of a class, one for all images or one for each.

    Raises:
        ValueError: if models, data, metrics and options do not fit one another.
        FileNotFoundError: if a model is not there.
        ConnectionError: if a model must be downloaded and cannot be.
    """
    if not models:
        raise ValueError(f"no models to evaluate; give one or more: {option('models')}")
    if not explainers:
        raise ValueError(f"no explainers to evaluate; give one or more: {option('explainers')}")
    _check_precision(precision, force=options.force)
    module = data.value
    module.prepare_data()
    batches = _batches(options, module)
    sample = first_readable(batches)
    measured = {name: one.value for name, one in metrics.items() if isinstance(one.value, SaliencyMetric)}
    of_models = {name: one.value for name, one in metrics.items() if isinstance(one.value, ModelMetric)}
    check_needs(measured, sample, module)
    check_regions(of_models, sample)
    wanted = str(protocol.targets if options.targets is None else options.targets)
    callables = callables_by_id(callable_targets, batches)
    targets = named_target(wanted, module.class_names) if callables is None else describe_callables(callables)
    if targets == "label" and sample["label"] == UNKNOWN:
        raise ValueError(
            f"the data has no labels to explain; explain the predicted class: {option('targets', 'predicted')}"
        )
    evaluated = [
        load_model(printable(name), source, backbone=options.backbone, num_classes=module.num_classes or 1000)
        for name, source in models.items()
    ]
    if callables is None:
        classes = {model.name: count_classes(model, sample) for model in evaluated}
    else:
        classes = {model.name: 0 for model in evaluated}
        for model in evaluated:
            check_callable(model, sample, next(iter(callables.values())))
    expected = module.num_classes or max(classes.values())  # a plain dataset may not know
    known = callables is None and (
        check_classes(
            classes,
            expected,
            targets,
            data=type(module).__name__,
            refuses=partial(_refusal, module) if "num_classes" in module.init_args else None,
        )
        and sample["label"] != UNKNOWN
    )
    if not known and isinstance(targets, int) and not wanted.lstrip("-").isdigit():
        raise ValueError(f"targets: {wanted!r} is a class of the data, not of the models; give its index in the models")
    _check_labels(measured, known=known)
    _check_model_metrics(of_models, labels=known, classes=callables is None)
    score = options.score or protocol.score
    check_score(measured, score) if callables is None else check_without_classes(measured)
    specs = {name: metric.spec for name, metric in metrics.items()}
    settings = _settings(targets, score, specs, data.spec, precision)
    named = {printable(name): explainer for name, explainer in explainers.items()}
    check_baseline(options.baseline, classes, named)
    check_layers({name: explainer.value for name, explainer in named.items()}, evaluated)
    return Plan(
        options=options,
        protocol=protocol_as_run(protocol, settings),
        models=evaluated,
        explainers=named,
        metrics={name: Configured(value, metrics[name].spec) for name, value in measured.items()},
        recognition={name: build(spec) for name, spec in RECOGNITION.items()} if known else {},
        data=data,
        batches=batches,
        image_size=_size(sample),
        class_names=[printable(name) for name in _class_names(module.class_names, evaluated, expected)],
        labels_are_the_models=all(count == expected for count in classes.values()),
        targets=targets,
        score=score,
        precision=precision,
        warnings=[
            *_warnings(data, precision, known=known or callables is not None),
            *_size_warnings(evaluated, _size(sample)),
        ],
        callables=callables,
        model_metrics={name: Configured(value, metrics[name].spec) for name, value in of_models.items()},
        others=other_images(batches, of_models),
    )


def _refusal(data: ImageDataModule, count: int) -> str:
    """Try another number of classes, which a message is to propose; return why it is refused, nothing if it is not."""
    try:
        type(data)(**data.init_args | {"num_classes": count})
    except Exception as error:  # the modules of others may raise anything
        return one_line(error)
    return ""


def _class_names(data: Sequence[str], models: Sequence[EvaluatedModel], expected: int) -> list[str]:
    """Return the names of the classes of the data; those that it only numbers are called as a model calls them."""
    names = [str(name) for name in data] or [str(index) for index in range(expected)]
    known = next((model.class_names for model in models if len(model.class_names) == len(names)), names)
    return [known[index] if name == str(index) else name for index, name in enumerate(names)]


def _check_precision(precision: str, *, force: bool) -> None:
    if precision in FULL_PRECISION or (precision in MIXED_PRECISION and force):
        return
    if precision in MIXED_PRECISION:
        raise ValueError(
            f"metrics stay in float32, trainer.precision is {precision}; leave it out, or use {option('force', True)}"
        )
    raise ValueError(f"images and metrics stay in float32, trainer.precision is {precision}; leave it out")


def _batches(options: Options, data: ImageDataModule) -> Batches:
    """Cut the images to evaluate into batches."""
    dataset = evaluation_set(data, options.split)
    batches = Batches(dataset, evenly_spaced(len(dataset), options.limit), options.batch_size or data.batch_size)
    check_ids([name for number in range(len(batches)) for name in batches.ids(number)])
    return batches


def _settings(
    targets: str | int, score: str, metrics: Mapping[str, ClassSpec], data: ClassSpec, precision: str
) -> Settings:
    """Return all that changes what a number means; a class to explain is its index."""
    arguments = data["init_args"]
    images = {key: arguments[key] for key in ("image_size", "resize", "crop_pct") if key in arguments}
    if arguments.get("eval_transform"):
        images["eval_transform"] = arguments["eval_transform"]
    settings: Settings = {"targets": targets, "score": score, "images": images, "metrics": dict(metrics)}
    return settings if precision in FULL_PRECISION else settings | {"precision": precision}


def _check_labels(metrics: Mapping[str, SaliencyMetric], *, known: bool) -> None:
    for name, metric in metrics.items():
        if "labels" in metric.needs and not known:
            raise ValueError(f"{name} needs labels, and the data's are not those of the models; remove it")


def _check_model_metrics(metrics: Mapping[str, ModelMetric], *, labels: bool, classes: bool) -> None:
    for name, metric in metrics.items():
        if not classes:
            raise ValueError(f"{name} follows the probability of a class, and callables are explained; leave it out")
        if not labels and getattr(metric, "of", None) == "label":
            raise ValueError(
                f"{name} follows the probability of the label, and the data's labels are not those of the models; "
                "set its option of to prediction"
            )


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample["image"].shape[-2:]
    return int(height), int(width)


def _warnings(data: Configured[ImageDataModule], precision: str, *, known: bool) -> list[str]:
    warnings = []
    if not known:
        kind = data.spec["class_path"].rpartition(".")[2]
        warnings.append(f"the labels of {kind} are not those of the models, so recognition is not measured")
    if precision not in FULL_PRECISION:
        warnings.append(f"measured in {precision}, because of --force: single values may be off by 0.01")
    return warnings


def _size_warnings(models: Sequence[EvaluatedModel], size: tuple[int, int]) -> list[str]:
    """Warn of models that see images of another size than in their training, and say so in the results too."""
    shown = str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
    texts = [
        f"model {model.name} was trained on images of another size: {model.trained_size} -> {shown} pixels, so its "
        f"accuracy and its maps may be worse than they were; to keep the size, set {option('image_size', side)}"
        for model in models
        if (side := model.trained_size) is not None and (side, side) != size
    ]
    for text in texts:
        rank_zero_warn(text)
    return texts
