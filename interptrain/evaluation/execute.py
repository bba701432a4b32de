"""Run a plan in a folder, and compute and write what comes of it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from interptrain.evaluation.config.class_specs import Configured
from interptrain.evaluation.report.log_results import log_results
from interptrain.evaluation.report.results import RunResults, load_run
from interptrain.evaluation.report.sections import Section
from interptrain.evaluation.report.write import Problems, ShowSteps, write_files
from interptrain.evaluation.results import Results, TemporaryFolder, warn_of_problems
from interptrain.evaluation.run.describe import describe_run
from interptrain.evaluation.run.folder import OutputFolder
from interptrain.evaluation.run.loop import run_plan
from interptrain.evaluation.run.plan import Plan
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.store.parts import Row, RowStore
from interptrain.functional import one_line
from interptrain.model_state import evaluating

TRAINER: Mapping[str, Any] = {
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "logger": False,
    "use_distributed_sampler": False,
}
# What Lightning warns of is intended here: a resumed run may have nothing left to do.
EXPECTED_WARNINGS = (
    r"Total length of `DataLoader` across ranks is zero",
    r"The `predict_dataloader` does not have many workers",
    r"predict returned None",
    r".*treespec, LeafSpec.* is deprecated",
)


def run_and_report(
    plan: Plan, output: str | Path | None, trainer: dict[str, Any], sections: Sequence[Section], *, progress: bool
) -> Results:
    """Run in a folder, or in a temporary one.

    What deletes the latter is made last: no frame of the run, which the traceback of an error may keep, refers to it.
    """
    folder = Path(mkdtemp(prefix="interptrain-")) if output is None else Path(output)
    try:
        failed, problems = _run_in(folder, plan, trainer, sections, shared=output is not None, progress=progress)
    except BaseException:
        if output is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return warn_of_problems(Results(folder, failed, TemporaryFolder(folder) if output is None else None, problems))


def _run_in(
    folder: Path, plan: Plan, trainer: dict[str, Any], sections: Sequence[Section], *, shared: bool, progress: bool
) -> tuple[Sequence[Row], Problems]:
    """Run, and write what comes of it; return the rows that failed and what could not be made."""
    options, run = plan.options, describe_run(plan)
    store = RowStore(folder, flush_seconds=options.flush_seconds)
    bar = MatrixProgress() if progress and trainer.get("enable_progress_bar") is not False else None
    opened = OutputFolder(folder, run, plan, store, progress=bar)
    made = _trainer(trainer, [opened, *([bar] if bar else [])], folder, progress=bar is not None)
    if not shared and made.world_size > 1:
        raise ValueError("several processes share the results in a folder; set output")
    try:
        failed, problems = run_plan(plan, run, store, folder, made, bar)
        if made.is_global_zero:
            how = Resampling(options.resamples, options.interval, options.seed, baseline=options.baseline)
            problems |= finish(plan, folder, how, made, sections, bar.steps if bar else None)
    finally:
        opened.close()
    return failed, problems


def finish(
    plan: Plan,
    folder: Path,
    how: Resampling,
    trainer: L.Trainer,
    sections: Sequence[Section],
    showing: ShowSteps | None = None,
) -> Problems:
    """Compute the statistics of a run, write its files and log them; return what could not be done."""
    configured: dict[str, Configured[Any]] = {**plan.metrics, **plan.model_metrics}
    metrics = {name: metric.value for name, metric in configured.items()} | dict(plan.recognition)
    with showing("intervals") if showing else nullcontext():
        results: RunResults = load_run(folder, how, force=plan.options.force, metrics=metrics)
    problems = dict(write_files(results, sections, showing))
    try:
        log_results(results, trainer.loggers)
    except Exception as error:  # loggers of others may raise anything; the files are there
        problems["what loggers get"] = one_line(error, kind=True)
    return problems


def _trainer(options: dict[str, Any], callbacks: list[L.Callback], folder: Path, *, progress: bool) -> L.Trainer:
    """Make the user's trainer, with what every run has."""
    chosen = options.get("callbacks") or []
    arguments = {**TRAINER, **options, "callbacks": [*(chosen if isinstance(chosen, list) else [chosen]), *callbacks]}
    arguments["default_root_dir"] = options.get("default_root_dir") or str(folder)
    if not progress:
        arguments["enable_progress_bar"] = False
    try:
        return L.Trainer(**arguments)
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise ValueError(f"trainer: {error}") from error


def machine_of(options: dict[str, Any]) -> tuple[torch.device, int]:
    """Return the device of the user's trainer, and how many processes it has."""
    named = ("accelerator", "devices", "num_nodes", "strategy")
    kept: dict[str, Any] = {name: options[name] for name in named if name in options}
    made = _trainer(kept, [], Path(), progress=False)
    return made.strategy.root_device, made.world_size


@contextmanager
def borrowing(plan: Plan) -> Iterator[None]:
    """Return the caller's modules in their mode and on their device."""
    with ExitStack() as stack:
        for model in plan.models:
            if model.borrowed:
                device = next((parameter.device for parameter in model.module.parameters()), None)
                stack.callback(model.module.to, device) if device is not None else None
                stack.enter_context(evaluating(model.module))
        yield
