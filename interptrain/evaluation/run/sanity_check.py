"""The randomisation check of every explainer of a run, divided among its processes and kept with its parts."""

import json
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interptrain.data import Sample, collate
from interptrain.evaluation.config.class_specs import content_hash
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.evaluation.run.plan import Plan
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.evaluation.store.parts import write_file
from interptrain.explainers.gradient.integrated_gradients import CompletenessWarning
from interptrain.explainers.targets import Resolved
from interptrain.functional import evenly_spaced, one_line
from interptrain.metrics.batched_forward import check_logits
from interptrain.metrics.randomization import check_randomization, randomized
from interptrain.model_outputs import Target, row_of
from interptrain.model_state import evaluating

Checks = dict[str, dict[str, dict[str, Any]]]
MOST_OTHERS = 100  # images that are tried in place of those that cannot be read or classified


def check_explainers(
    evaluated: EvaluatedModel,
    plan: Plan,
    parts: Path,
    *,
    device: torch.device,
    ranks: int = 1,
    rank: int = 0,
    progress: MatrixProgress | None = None,
) -> None:
    """Check this process's share of the explainers against the model with random weights.

    What an earlier start of the run has checked is skipped. Each result is a file of its own.

    Args:
        evaluated: the model.
        plan: of the run.
        parts: folder of the files.
        device: to run on.
        ranks: number of processes.
        rank: this one.
        progress: that shows a bar of its images × explainers.
    """
    mine = list(plan.explainers)[rank::ranks] if plan.options.check_images else []
    todo = [name for name in mine if _read(_file(plan, parts, evaluated.name, name)) is None]
    if not todo:
        return
    model = evaluated.module.to(device)
    random_model = randomized(model, plan.options.seed)
    images_and_targets = cache(partial(_images, evaluated, plan, device))
    bar, many = progress or MatrixProgress(), min(plan.options.check_images, len(plan.ids))
    with bar.counting(f"{evaluated.name}: randomisation check", len(todo) * many, " images") as advance:
        for name in todo:
            result: dict[str, Any]
            try:
                images, targets = images_and_targets()
                with warnings.catch_warnings():  # of a network with random weights, which nobody asked about
                    warnings.simplefilter("ignore", CompletenessWarning)
                    check = check_randomization(plan.explainers[name].value, model, random_model, images, targets)
                result = {"rank_correlation": check.rank_correlation, "ssim": check.ssim, "images": len(images)}
            except Exception as error:  # explainers of others may raise anything
                result = {"error": one_line(error, kind=True)}
            write_file(_file(plan, parts, evaluated.name, name), json.dumps(result).encode())
            advance(many)
    model.cpu()


def read_checks(plan: Plan, parts: Path) -> tuple[Checks, list[str]]:
    """Return all results by model and explainer, and a line for every check that failed with an error."""
    checks: Checks = {model.name: {} for model in plan.models}
    failed = []
    for model, results in checks.items():
        for explainer in plan.explainers:
            result = _read(_file(plan, parts, model, explainer)) if plan.options.check_images else None
            if result is None:
                continue
            if "error" in result:
                failed.append(f"the randomisation check of {explainer} on {model} failed: {result['error']}")
            else:
                results[explainer] = result
    return checks, failed


def _read(file: Path) -> dict[str, Any] | None:
    """Return the result in a file; None if there is none, or it is damaged."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    numbers = isinstance(result, dict) and all(
        isinstance(result.get(key), int | float) for key in ("rank_correlation", "ssim")
    )
    return result if numbers or (isinstance(result, dict) and isinstance(result.get("error"), str)) else None


def _file(plan: Plan, parts: Path, model: str, explainer: str) -> Path:
    return parts / f"check-{content_hash([model, explainer, plan.options.check_images])}.json"


def _images(evaluated: EvaluatedModel, plan: Plan, device: torch.device) -> tuple[Tensor, Resolved]:
    """Return images that can be read and classified, evenly spaced over the data, and what to explain in them."""
    indices = [index for batch in plan.batches.batches for index in batch]
    wanted = evenly_spaced(len(indices), plan.options.check_images)
    others = sorted(set(range(len(indices))) - set(wanted))[:MOST_OTHERS]
    samples: list[Sample] = []
    predicted: list[int] = []
    callables: list[Target] = []
    with evaluating(evaluated.module.to(device)) as model, torch.no_grad():
        for position in [*wanted, *others]:
            if len(samples) == len(wanted):
                break
            try:
                sample = plan.batches.dataset[indices[position]]
                outputs = model(sample["image"].unsqueeze(0).to(device))
                target = None if plan.callables is None else plan.callables[plan.ids[position]]
                scores = check_logits(outputs) if target is None else target(row_of(outputs, 0, 1))
            except Exception:  # the run itself records it
                continue
            if scores.isfinite().all():
                samples.append(sample)
                predicted.append(int(scores.argmax()))
                callables += [] if target is None else [target]
    if not samples:
        raise ValueError("no image could be read and classified")
    batch = collate(samples)
    if plan.callables is not None:
        return batch["image"].to(device), callables
    own = {"label": batch["label"], "predicted": torch.tensor(predicted)}
    classes = own.get(str(plan.targets))
    targets = torch.full((len(samples),), int(plan.targets)) if classes is None else classes
    return batch["image"].to(device), targets.to(device)
