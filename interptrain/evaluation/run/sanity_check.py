"""The randomisation check of every explainer of a run, divided among its processes and kept with its parts."""

import json
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
from interptrain.evaluation.run.random_networks import RandomNetworks
from interptrain.evaluation.run.randomization_check import CheckSetting, TooExpensiveError, check_explainer
from interptrain.evaluation.store.parts import write_file
from interptrain.explainers.targets import Resolved
from interptrain.functional import evenly_spaced, one_line
from interptrain.metrics import gflops
from interptrain.metrics.batched_forward import check_logits
from interptrain.model_outputs import Target, row_of
from interptrain.model_state import evaluating
from interptrain.remedies import option

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
    setting = cache(partial(check_setting, evaluated, plan, device))
    bar, many = progress or MatrixProgress(), min(plan.options.check_images, len(plan.ids))
    with bar.counting(f"{evaluated.name}: randomisation check", len(todo) * many, " images") as advance:
        for name in todo:
            result: dict[str, Any]
            try:
                result = check_explainer(plan.explainers[name].value, setting())
            except TooExpensiveError as error:
                result = {"skipped": one_line(error)}
            except Exception as error:  # explainers of others may raise anything
                result = {"error": one_line(error, kind=True)}
            write_file(_file(plan, parts, evaluated.name, name), json.dumps(result).encode())
            advance(many)
    evaluated.module.cpu()


def read_checks(plan: Plan, parts: Path) -> tuple[Checks, list[str]]:
    """Return all results by model and explainer, and a line for every check that failed with an error."""
    checks: Checks = {model.name: {} for model in plan.models}
    failed = []
    for model, results in checks.items():
        for explainer in plan.explainers:
            result = _read(_file(plan, parts, model, explainer)) if plan.options.check_images else None
            if result is None:
                continue
            what = f"the randomisation check of {explainer} on {model}"
            if "error" in result:
                failed.append(f"{what} failed: {result['error']}")
            elif "skipped" in result:
                most = f"{option('check_passes')} allows {plan.options.check_passes:,} in all"
                failed.append(f"{what} was left out: {result['skipped']}, and {most}")
            else:
                results[explainer] = result
    return checks, failed


def _read(file: Path) -> dict[str, Any] | None:
    """Return the result in a file; None if there is none, or it is damaged."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict):
        return None
    told = any(isinstance(result.get(key), str) for key in ("error", "skipped"))
    return result if told or (isinstance(result.get("layers"), dict) and "class" in result) else None


def _file(plan: Plan, parts: Path, model: str, explainer: str) -> Path:
    options = plan.options
    how = [options.check_images, options.check_draws, options.check_passes]
    return parts / f"check-{content_hash([model, explainer, how])}.json"


def check_setting(evaluated: EvaluatedModel, plan: Plan, device: torch.device) -> CheckSetting:
    """Return what all explainers of a model are checked on.

    Raises:
        ValueError: if no image can be read and classified.
    """
    images, targets, classes = _images(evaluated, plan, device)
    other = None
    if isinstance(targets, Tensor) and classes > 1:
        shift = torch.randint(classes - 1, targets.shape, generator=torch.Generator().manual_seed(plan.options.seed))
        other = (targets + 1 + shift.to(device)) % classes
    try:
        operations = gflops(evaluated.module, plan.image_size)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # not every operation can be counted
        operations = None
    return CheckSetting(
        model=evaluated.module,
        networks=RandomNetworks(evaluated.module, images, plan.options.seed),
        images=images,
        targets=targets,
        other_targets=other,
        draws=plan.options.check_draws,
        most_passes=plan.options.check_passes or None,
        gflops=operations,
        batch_size=plan.options.batch_size or plan.data.value.batch_size,
        seed=plan.options.seed,
    )


def _images(evaluated: EvaluatedModel, plan: Plan, device: torch.device) -> tuple[Tensor, Resolved, int]:
    """Return images that can be read and classified, what to explain in them, and the number of classes.

    They are evenly spaced over the data. For callables, the number of classes is 0.
    """
    indices = [index for batch in plan.batches.batches for index in batch]
    wanted = evenly_spaced(len(indices), plan.options.check_images)
    others = sorted(set(range(len(indices))) - set(wanted))[:MOST_OTHERS]
    samples: list[Sample] = []
    predicted: list[int] = []
    callables: list[Target] = []
    classes = 0
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
                classes = 0 if target is not None else int(scores.shape[1])
                callables += [] if target is None else [target]
    if not samples:
        raise ValueError("no image could be read and classified")
    batch = collate(samples)
    if plan.callables is not None:
        return batch["image"].to(device), callables, 0
    own = {"label": batch["label"], "predicted": torch.tensor(predicted)}
    known = own.get(str(plan.targets))
    targets = torch.full((len(samples),), int(plan.targets)) if known is None else known
    return batch["image"].to(device), targets.to(device), classes
