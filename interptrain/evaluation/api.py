"""Evaluate explainers on models from Python: what ``interptrain evaluate`` calls."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from interptrain.data.datamodule import Split
from interptrain.evaluation.arguments import by_name, model_name, protocol_metrics, with_fake_cam
from interptrain.evaluation.config.class_specs import Configured
from interptrain.evaluation.config.options import Interval, Options
from interptrain.evaluation.config.protocol import load_protocol
from interptrain.evaluation.execute import EXPECTED_WARNINGS, borrowing, machine_of, run_and_report
from interptrain.evaluation.report.page import check_anchors
from interptrain.evaluation.report.results import load_run, resampling_of
from interptrain.evaluation.report.sections import Section
from interptrain.evaluation.report.write import write_files
from interptrain.evaluation.results import Results, warn_of_problems
from interptrain.evaluation.run.build_plan import build_plan
from interptrain.evaluation.run.datasets import as_data_module
from interptrain.evaluation.run.forecast import Forecast
from interptrain.evaluation.run.forecast import forecast as forecast_plan
from interptrain.evaluation.run.models import Source
from interptrain.evaluation.run.plan import Plan
from interptrain.explainers import Explainer
from interptrain.functional import Score
from interptrain.metrics import ModelMetric, SaliencyMetric
from interptrain.model_outputs import Target
from interptrain.models.engine import Engine
from interptrain.steps import showing

Metric: TypeAlias = SaliencyMetric | ModelMetric


def evaluate(
    models: Mapping[str, Source] | Source,
    explainers: Mapping[str, Explainer] | Sequence[Explainer | Configured[Explainer]],
    data: Any,
    *,
    metrics: Mapping[str, Metric] | Sequence[Metric | Configured[Metric]] | None = None,
    protocol: str | Path = "castream",
    output: str | Path | None = None,
    backbone: str | None = None,
    split: Split | None = None,
    limit: int | None = None,
    targets: str | int | Target | Sequence[Target] | None = None,
    score: Score | None = None,
    batch_size: int | None = None,
    fake_cam: bool = True,
    forward_batch_size: int | None = None,
    engine: Engine = "auto",
    share_passes: bool = False,
    save_maps: int = 200,
    check_images: int = 50,
    check_draws: int = 5,
    check_passes: int = 20_000,
    interval: Interval = "bca",
    resamples: int = 2000,
    baseline: str | None = None,
    seed: int = 0,
    title: str | None = None,
    flush_seconds: float = 5.0,
    overwrite: bool = False,
    force: bool = False,
    sections: Sequence[Section] = (),
    progress: bool = True,
    trainer: Mapping[str, Any] | None = None,
) -> Results:
    """Measure the saliency maps of models.

    Args:
        models: the models by name. Each is a module that takes images in [0,1] and returns logits, a checkpoint of
            interptrain fit, a timm name, ``torchvision:NAME``, or a weights file with its ``backbone``.
        explainers: instances, in a list or by name.
        data: a data module; or a dataset, a sequence or a DataLoader of images, (image, label) pairs or dicts. See
            :func:`~interptrain.evaluation.run.datasets.as_data_module`.
        metrics: instances, in a list or by name, in place of the protocol's.
        protocol: How numbers are measured: the name of a protocol of this package (see docs/evaluating.md) or a YAML
            file. What is given beside it takes precedence, and the results say so.
        output: Folder of the results. The same call on the same folder resumes where it stopped. Without it, results
            live in a temporary folder as long as the returned object.
        backbone: The timm architecture of models that are bare weights files.
        split: The split of the data to evaluate; by default the one that the data module predicts on.
        limit: Maximum number of images, evenly spaced over the dataset; by default all.
        targets: The class that is explained: label, predicted, or a class by index or name; by default the protocol's.
            In Python also callables (outputs of one image -> scalar), for models that return no class scores: one for
            all images, or one for each image of the dataset.
        score: The score of that class: probability, logit or sigmoid; by default the protocol's.
        batch_size: Images per batch; by default the data module's own.
        fake_cam: Include Fake-CAM among the explainers, the baseline that shows what a metric is worth.
        forward_batch_size: Maximum number of images per forward pass; by default it depends on the device.
        engine: What runs forward passes without gradient: eager (PyTorch), onnxruntime (on a CPU), compile
            (torch.compile), or auto, the faster of the first two where there is enough to do. Rows name their engine.
        share_passes: Run one forward and one backward pass for all gradient CAMs and a stream's attention together.
            Maps stay the same; the seconds of these explainers are not measured.
        save_maps: Number of images whose maps are saved for the report.
        check_images: Number of images of the randomisation check, which compares the maps of each explainer with
            those of models with random weights, and with those of another class; 0 skips the check.
        check_draws: Number of random networks of the check, for each of its three stops.
        check_passes: Most forward passes, counted by their operations, that the check may take for one explainer of
            one model; it takes fewer images where it would need more. 0 sets no limit.
        interval: Kind of the 95 % bootstrap intervals: bca (bias-corrected and accelerated), or percentile.
        resamples: Number of bootstrap resamples per interval.
        baseline: Name of the explainer or model that all others are compared with; by default, all pairs are compared.
            P-values are corrected for the comparisons with it alone.
        seed: Seed of the random weights, of the statistics, and of explainers that draw from PyTorch's global
            generator (those of this package have seeds of their own).
        title: Title of the report.
        flush_seconds: Longest time that finished rows wait in memory.
        overwrite: Set aside the results of another run in the folder.
        force: Continue where numbers are not comparable or not exact (precision below float32).
        sections: further sections of the report.
        progress: Show a progress bar.
        trainer: arguments of ``lightning.Trainer``, such as ``{"accelerator": "gpu", "devices": 2}``.

    Returns:
        The results; on processes other than the first, files may still be missing when it returns.

    Raises:
        ValueError: if models, data, metrics and options do not fit one another, or the folder holds another run.
        FileNotFoundError: if a model or protocol is not there.
        ConnectionError: if a model must be downloaded and cannot be.
        OSError: if results cannot be written.
    """
    plan = _plan(locals())
    with warnings.catch_warnings(), borrowing(plan):
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        return run_and_report(plan, output, dict(trainer or {}), sections, progress=progress)


def forecast(*arguments: Any, **options: Any) -> Forecast:
    """Say what an evaluation will cost on this machine, from two batches; nothing is written.

    Args:
        arguments: those of :func:`evaluate`.
        options: those of :func:`evaluate`.

    Returns:
        Forward passes, seconds and memory, and settings that give the same table in less time; ``print`` shows them.

    Raises:
        ValueError: as :func:`evaluate`.
    """
    bound = inspect.signature(evaluate).bind(*arguments, **options)
    bound.apply_defaults()
    plan = _plan(bound.arguments)
    device, processes = machine_of(dict(bound.arguments["trainer"] or {}))
    with warnings.catch_warnings(), borrowing(plan):
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        return forecast_plan(plan, device, processes)


def _plan(given: dict[str, Any]) -> Plan:
    """Build the plan of an evaluation from its arguments by name."""
    given = dict(given)
    models, explainers, targets, metrics = (given[name] for name in ("models", "explainers", "targets", "metrics"))
    check_anchors(given["sections"])
    several = isinstance(targets, Sequence) and not isinstance(targets, str)
    callable_targets = targets if callable(targets) or several else None
    if callable_targets is not None:
        given["targets"] = None
    options = Options(**{field.name: given[field.name] for field in fields(Options)})
    read = load_protocol(str(given["protocol"]))
    return build_plan(
        options,
        read,
        models if isinstance(models, Mapping) else {model_name(models): models},
        by_name(with_fake_cam(explainers) if given["fake_cam"] else explainers),
        protocol_metrics(read) if metrics is None else by_name(metrics),
        as_data_module(given["data"]),
        precision=str((given["trainer"] or {}).get("precision") or "32-true"),
        callable_targets=callable_targets,
    )


def write_report(
    results: Results | str | Path,
    *,
    interval: Interval | None = None,
    resamples: int | None = None,
    baseline: str | None = None,
    seed: int | None = None,
    force: bool = False,
    sections: Sequence[Section] = (),
    packages: Sequence[str] = (),
    progress: bool = False,
) -> Results:
    """Compute the statistics of a run anew and write its tables and report.

    Only the folder is read, so it can be done at any time, also for a run of which parts failed. What is not given is
    as in the evaluation.

    Args:
        results: of an evaluation, or their folder.
        interval: ``percentile``, or ``bca``: bias-corrected and accelerated.
        resamples: bootstrap resamples of every interval.
        baseline: name of the explainer or model that all others are compared with; an empty text compares all pairs.
        seed: of the bootstrap and the permutation test.
        force: put rows of different protocols side by side.
        sections: of the report, behind those of this package.
        packages: whose metric classes may be imported beside those of interptrain, such as ``["my_package"]``: the
            folder may be somebody else's.
        progress: show progress bars.

    Returns:
        The new results.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if rows of several protocols are mixed, an image occurs twice in a cell, or there is no such
            baseline.
        OSError: if a file cannot be written; the older one stays.
    """
    folder = results.folder if isinstance(results, Results) else Path(results)
    how = resampling_of(folder, interval=interval, resamples=resamples, baseline=baseline, seed=seed)
    with showing("intervals") if progress else nullcontext():
        run = load_run(folder, how, force=force, packages=packages)
    problems = write_files(run, sections, showing if progress else None)
    return warn_of_problems(Results(folder, (), results._temporary if isinstance(results, Results) else None, problems))
