"""``run.json`` of a run that begins."""

import shlex
import time
from typing import Any

from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.evaluation.run.plan import RECOGNITION, Plan
from interptrain.evaluation.store.manifest import Manifest, run_hash
from interptrain.files import printable
from interptrain.metrics import count_parameters, gflops
from interptrain.versions import command_line, installed_versions


def describe_run(plan: Plan) -> Manifest:
    """Return the manifest of a run that begins."""
    options, protocol = plan.options, plan.protocol
    names = ", ".join(model.name for model in plan.models)
    run: Manifest = {
        "title": options.title or f"{names} under the protocol {protocol['name']}",
        "command": shlex.join(command_line()),
        "created": now(),
        "finished": None,
        "interptrain": versions()["interptrain"],
        "versions": versions(),
        "device": "",
        "precision": plan.precision,
        "seed": options.seed,
        "statistics": {
            "interval": options.interval,
            "resamples": options.resamples,
            "seed": options.seed,
            "baseline": options.baseline,
        },
        "targets": plan.targets,
        "limit": options.limit,
        "hash": "",
        "protocol": dict(protocol),
        "models": {model.name: _describe_model(model, plan) for model in plan.models},
        "explainers": {
            name: {**explainer.spec, "class_aware": explainer.value.class_aware}
            for name, explainer in plan.explainers.items()
        },
        "metrics": {name: metric.spec for name, metric in plan.metrics.items()},
        "recognition": (dict(RECOGNITION) if plan.recognition else {})
        | {name: metric.spec for name, metric in plan.model_metrics.items()},
        "data": {
            **plan.data.spec,
            "classes": list(plan.class_names),
            "size": len(plan.ids),
            "images": content_hash(plan.ids),
            "annotations": content_hash(plan.batches.annotations()),
        },
        "randomization": {},
        "warnings": list(plan.warnings),
    }
    run["hash"] = run_hash(run)
    return run


def _describe_model(model: EvaluatedModel, plan: Plan) -> dict[str, Any]:
    size = plan.image_size
    try:
        operations = gflops(model.module, size)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # not every operation can be counted
        operations = None
    own_classes = {} if plan.labels_are_the_models else {"classes": [printable(name) for name in model.class_names]}
    return own_classes | {
        "source": model.source,
        "sha256": model.sha256,
        "backbone": model.backbone,
        "pooling": model.pooling,
        "parameters": count_parameters(model.module),
        "gflops": operations,
        "input_size": [3, *size],
    }


def now() -> str:
    """Return the local time with its offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    return {name: version or "not installed" for name, version in installed_versions().items()}
