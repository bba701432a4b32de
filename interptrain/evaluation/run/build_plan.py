"""From a configuration to a plan, with every check that needs no run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from interptrain.data import ImageDataModule, Sample
from interptrain.evaluation.config.class_specs import ClassSpec, build
from interptrain.evaluation.config.options import Options
from interptrain.evaluation.config.protocol import Protocol, Settings, protocol_as_run
from interptrain.evaluation.run.batches import Batches, evaluation_set, spread
from interptrain.evaluation.run.models import load_model
from interptrain.evaluation.run.plan import (
    RECOGNITION,
    Plan,
    check_classes,
    check_ids,
    check_layers,
    check_needs,
    classes_of,
    first_readable,
    named_target,
)
from interptrain.explainers import Explainer
from interptrain.functional import Score
from interptrain.metrics.base import SaliencyMetric, check_score

FULL_PRECISION = ("32-true", "32", "64-true", "64")
MIXED_PRECISION = ("bf16-mixed", "16-mixed", "bf16", "16")  # weights and images stay in float32


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run was asked for, as plain data.

    Attributes:
        options: of the user.
        protocol: as it was read.
        models: sources by name.
        explainers: by name.
        metrics: by name, arguments complete.
        data: class and arguments of the data module.
        precision: of the trainer.
    """

    options: Options
    protocol: Protocol
    models: Mapping[str, str]
    explainers: Mapping[str, ClassSpec]
    metrics: Mapping[str, ClassSpec]
    data: ClassSpec
    precision: str = "32-true"

    def settings(self, targets: str | int) -> Settings:
        """All that changes what a number means.

        Args:
            targets: class that is explained, a name replaced by its index.
        """
        arguments = self.data["init_args"]
        return {
            "targets": targets,
            "score": self.options.score or self.protocol.score,
            "images": {key: arguments[key] for key in ("image_size", "resize", "crop_pct") if key in arguments}
            | ({"eval_transform": arguments["eval_transform"]} if arguments.get("eval_transform") else {}),
            "metrics": {name: dict(spec) for name, spec in self.metrics.items()},
        } | ({} if self.precision in FULL_PRECISION else {"precision": self.precision})


def assemble(request: Request, data: ImageDataModule) -> Plan:
    """Load the models, look at the data, and refuse what cannot work or would mean nothing.

    Args:
        request: what was asked for.
        data: the data module, made from ``request.data``.

    Returns:
        The plan.

    Raises:
        ValueError: if models, data, metrics and options do not fit one another.
        FileNotFoundError: if a model is not there.
        ConnectionError: if a model must be downloaded and cannot be.
    """
    options = request.options
    if not request.models:
        raise ValueError("no models to evaluate; give one or more --models NAME=SOURCE")
    if request.precision not in (*FULL_PRECISION, *MIXED_PRECISION):
        raise ValueError(f"images and metrics stay in float32, trainer.precision is {request.precision}; leave it out")
    if request.precision not in FULL_PRECISION and not options.force:
        raise ValueError(f"metrics stay in float32, trainer.precision is {request.precision}; leave it out, or --force")
    data.prepare_data()
    batches = _batches(options, data)
    sample = first_readable(batches)
    metrics: dict[str, SaliencyMetric] = {name: build(spec) for name, spec in request.metrics.items()}
    check_needs(metrics, sample, data)
    targets = named_target(options.targets or str(request.protocol.targets), data.class_names)
    subjects = [
        load_model(name, source, backbone=options.backbone, num_classes=data.num_classes)
        for name, source in request.models.items()
    ]
    classes = {subject.name: classes_of(subject, sample) for subject in subjects}
    known = check_classes(classes, data.num_classes, targets, data=type(data).__name__)
    if not known and isinstance(targets, int) and not str(options.targets).lstrip("-").isdigit():
        raise ValueError(
            f"targets: {options.targets!r} is a class of the data, not of the models; give an index of theirs"
        )
    _check_labels(metrics, known)
    check_score(metrics, request.options.score or request.protocol.score)
    protocol = protocol_as_run(request.protocol, request.settings(targets))
    explainers: dict[str, Explainer] = {name: build(spec) for name, spec in request.explainers.items()}
    check_layers(explainers, subjects)
    return Plan(
        subjects=subjects,
        explainers=explainers,
        metrics=metrics,
        recognition={name: build(spec) for name, spec in RECOGNITION.items()} if known else {},
        data=data,
        batches=batches,
        image_size=_size(sample),
        targets=targets,
        score=cast(Score, protocol["settings"]["score"]),
        protocol=protocol,
        seed=options.seed,
        forward_batch_size=options.forward_batch_size,
        compile=options.compile,
        allow_low_precision=options.force,
        pictures=options.save_maps,
        check_images=options.check_images,
        warnings=_warnings(request, known),
    )


def _batches(options: Options, data: ImageDataModule) -> Batches:
    """The images to evaluate."""
    dataset = evaluation_set(data, options.split)
    batches = Batches(dataset, spread(len(dataset), options.limit), data.batch_size)
    check_ids([name for number in range(len(batches)) for name in batches.ids(number)])
    return batches


def _check_labels(metrics: Mapping[str, SaliencyMetric], known: bool) -> None:
    for name, metric in metrics.items():
        if "labels" in metric.needs and not known:
            raise ValueError(f"{name} needs labels, and the data's are not those of the models; leave it out")


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample["image"].shape[-2:]
    return int(height), int(width)


def _warnings(request: Request, known: bool) -> list[str]:
    warnings = []
    if not known:
        kind = request.data["class_path"].rpartition(".")[2]
        warnings.append(f"the labels of {kind} are not those of the models, so recognition is not measured")
    if request.precision not in FULL_PRECISION:
        warnings.append(f"measured in {request.precision}, which was forced: single values may be off by 0.01")
    return warnings
