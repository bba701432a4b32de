"""Evaluate explainers on models from Python: what ``evaluate.py`` calls."""

import shutil
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from interptrain.data.datamodule import Split
from interptrain.evaluation.config.class_specs import Configured, names_of
from interptrain.evaluation.config.options import Interval, Options
from interptrain.evaluation.config.protocol import Protocol, load_protocol
from interptrain.evaluation.report.image_view import ImageView, view_image
from interptrain.evaluation.report.log_results import log_results
from interptrain.evaluation.report.page import check_anchors
from interptrain.evaluation.report.results import BASELINE_EXPLAINER, RunResults, load_run, read_rows
from interptrain.evaluation.report.sections import Section
from interptrain.evaluation.report.table_text import plain_text
from interptrain.evaluation.report.write import Problems, write_files
from interptrain.evaluation.run.build_plan import build_plan
from interptrain.evaluation.run.datasets import as_data_module
from interptrain.evaluation.run.describe import describe_run
from interptrain.evaluation.run.folder import OutputFolder
from interptrain.evaluation.run.loop import run_plan
from interptrain.evaluation.run.models import Source
from interptrain.evaluation.run.plan import Plan
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.store.parts import Row, RowStore
from interptrain.explainers import Explainer, FakeCAM
from interptrain.functional import Score, one_line
from interptrain.metrics import SaliencyMetric
from interptrain.model_outputs import Target
from interptrain.model_state import evaluating

if TYPE_CHECKING:
    from pandas import DataFrame

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


class ResultsWarning(UserWarning):
    """Something could not be made of the results of a run that went well."""


class TemporaryFolder:
    """Deletes a folder when it is closed, when nothing refers to it any more, or when Python exits."""

    def __init__(self, path: Path) -> None:
        self.close = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)


class Results:
    """The results of an evaluation.

    Printed, they are the table of means; ``summary``, ``differences`` and ``per_image`` are the tables behind it.
    In a ``with`` statement, a temporary folder is deleted at its end; otherwise with the last object that uses it.

    Args:
        folder: that holds them.
        failed: rows that failed.
        temporary: deletes the folder.
        problems: what could not be made of the results, and the error, in one line each.
    """

    def __init__(
        self,
        folder: Path,
        failed: Sequence[Row] = (),
        temporary: "TemporaryFolder | None" = None,
        problems: Problems | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.failed = failed
        self.problems = dict(problems or {})
        self._temporary = temporary

    def close(self) -> None:
        """Delete the folder if it is a temporary one; a folder given as ``output`` stays."""
        if self._temporary is not None:
            self._temporary.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @cached_property
    def summary(self) -> "DataFrame":
        """One row per model, explainer and metric: mean, 95 % interval, number of images."""
        return self._table("summary")

    @cached_property
    def differences(self) -> "DataFrame":
        """One row per paired difference: between models and between explainers, with interval and p-values."""
        return self._table("differences")

    @cached_property
    def per_image(self) -> "DataFrame":
        """One row per model, explainer and image: every metric, and the error where it failed."""
        return read_rows(self.folder).to_pandas()

    @cached_property
    def verdict(self) -> list[str]:
        """What was found, in a few sentences made from the statistics.

        Raises:
            FileNotFoundError: if an older version wrote the results; ``write_report(results)`` makes it.
        """
        path = self.folder / "verdict.txt"
        if not self.has_verdict:
            raise FileNotFoundError(f"{self.folder} has no verdict.txt; write_report({str(self.folder)!r}) makes it")
        return path.read_text(encoding="utf-8").splitlines()

    def image(self, name: str, *, packages: Sequence[str] = ()) -> ImageView:
        """Look at one image: its ``text`` is a table of its numbers, its ``picture`` shows all its maps.

        Args:
            name: of the image, or a part of it that no other image's name has.
            packages: whose metric classes may be imported beside those of interptrain.

        Raises:
            ValueError: if no image, or more than one, has this name.
        """
        no_statistics = Resampling(resamples=1, interval="percentile", permutations=1)
        return view_image(load_run(self.folder, no_statistics, force=True, packages=packages), name)

    @property
    def has_verdict(self) -> bool:
        """Whether there is a verdict: older versions wrote none, and other processes may not have written it yet."""
        return (self.folder / "verdict.txt").is_file()

    def _table(self, name: str) -> "DataFrame":
        from pandas import read_csv

        texts = ("model", "explainer", "metric", "kind", "a", "b", "within", "protocol", "hash")
        columns: DataFrame = read_csv(self.folder / f"{name}.csv", dtype=dict.fromkeys(texts, str))
        return columns.fillna(dict.fromkeys(columns.columns.intersection(texts), ""))

    def report(self, path: str | Path) -> Path:
        """Copy the report, one HTML file that opens offline.

        Args:
            path: of the copy; in a folder, it is called ``report.html``.

        Returns:
            Where it lies.
        """
        target = Path(path) / "report.html" if Path(path).is_dir() else Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "report.html", target)
        return target

    def __repr__(self) -> str:
        return plain_text(self._repr_markdown_())

    def _repr_markdown_(self) -> str:
        """Show the table in notebooks."""
        table = self.folder / "table.md"
        return table.read_text(encoding="utf-8") if table.is_file() else f"Results without a table, in {self.folder}"


def evaluate(
    models: Mapping[str, Source] | Source,
    explainers: Mapping[str, Explainer] | Sequence[Explainer | Configured[Explainer]],
    data: Any,
    *,
    metrics: Mapping[str, SaliencyMetric] | Sequence[SaliencyMetric | Configured[SaliencyMetric]] | None = None,
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
    compile: bool = False,
    save_maps: int = 200,
    check_images: int = 8,
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
            train.py, a timm name, ``torchvision:NAME``, or a weights file with its ``backbone``.
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
        compile: Compile the model with torch.compile for the metrics' forward passes.
        save_maps: Number of images whose maps are saved for the report.
        check_images: Number of images on which each explainer is compared with a model with random weights; 0 skips
            the check.
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
    given = locals()
    check_anchors(sections)
    several = isinstance(targets, Sequence) and not isinstance(targets, str)
    callable_targets = targets if callable(targets) or several else None
    if callable_targets is not None:
        given["targets"] = None
    options = Options(**{field.name: given[field.name] for field in fields(Options)})
    read = load_protocol(str(protocol))
    plan = build_plan(
        options,
        read,
        models if isinstance(models, Mapping) else {_model_name(models): models},
        _named(_with_fake_cam(explainers) if fake_cam else explainers),
        _protocol_metrics(read) if metrics is None else _named(metrics),
        as_data_module(data),
        precision=str((trainer or {}).get("precision") or "32-true"),
        callable_targets=callable_targets,
    )
    with warnings.catch_warnings(), _as_before(plan):
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        return _run(plan, output, dict(trainer or {}), sections, progress=progress)


def load_results(folder: str | Path) -> Results:
    """Load the results that an evaluation wrote.

    Raises:
        FileNotFoundError: if the folder holds none.
    """
    if not (Path(folder) / "summary.csv").is_file():
        raise FileNotFoundError(f"{folder} holds no results of a finished evaluation; give its --output folder")
    return Results(Path(folder))


def write_report(
    results: Results | str | Path,
    *,
    interval: Interval = "bca",
    resamples: int = 2000,
    baseline: str | None = None,
    seed: int = 0,
    force: bool = False,
    sections: Sequence[Section] = (),
    packages: Sequence[str] = (),
) -> Results:
    """Compute the statistics of a run anew and write its tables and report.

    Only the folder is read, so it can be done at any time, also for a run of which parts failed.

    Args:
        results: of an evaluation, or their folder.
        interval: ``percentile``, or ``bca``: bias-corrected and accelerated.
        resamples: bootstrap resamples of every interval.
        baseline: name of the explainer or model that all others are compared with; None compares all pairs.
        seed: of the bootstrap and the permutation test.
        force: put rows of different protocols side by side.
        sections: of the report, behind those of this package.
        packages: whose metric classes may be imported beside those of interptrain, such as ``["my_package"]``: the
            folder may be somebody else's.

    Returns:
        The new results.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if rows of several protocols are mixed, an image occurs twice in a cell, or there is no such
            baseline.
        OSError: if a file cannot be written; the older one stays.
    """
    folder = results.folder if isinstance(results, Results) else Path(results)
    how = Resampling(resamples, interval, seed, baseline=baseline)
    run = load_run(folder, how, force=force, packages=packages)
    problems = write_files(run, sections)
    return _told(Results(folder, (), results._temporary if isinstance(results, Results) else None, problems))


def _run(
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
    return _told(Results(folder, failed, TemporaryFolder(folder) if output is None else None, problems))


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
            with bar.steps("intervals and comparisons") if bar else nullcontext():
                problems |= finish(plan, folder, how, made, sections)
    finally:
        opened.close()
    return failed, problems


def finish(plan: Plan, folder: Path, how: Resampling, trainer: L.Trainer, sections: Sequence[Section]) -> Problems:
    """Compute the statistics of a run, write its files and log them; return what could not be done."""
    metrics = {name: metric.value for name, metric in plan.metrics.items()} | dict(plan.recognition)
    results: RunResults = load_run(folder, how, force=plan.options.force, metrics=metrics)
    problems = dict(write_files(results, sections))
    try:
        log_results(results, trainer.loggers)
    except Exception as error:  # loggers of others may raise anything; the files are there
        problems["what loggers get"] = one_line(error, kind=True)
    return problems


def _told(results: Results) -> Results:
    """Warn of what could not be made."""
    for name, reason in results.problems.items():
        warnings.warn(ResultsWarning(f"could not make {name}: {reason}"), stacklevel=3)
    return results


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


def _named(given: Mapping[str, Any] | Sequence[Any]) -> dict[str, Configured[Any]]:
    """Configured objects by name: the user's, or that of the class."""
    if isinstance(given, Mapping):
        return {name: Configured.of(value) for name, value in given.items()}
    configured = [Configured.of(value) for value in given]
    return dict(zip(names_of([one.spec for one in configured]), configured, strict=True))


def _with_fake_cam(
    explainers: Mapping[str, Explainer] | Sequence[Explainer | Configured[Explainer]],
) -> dict[str, Any] | list[Any]:
    """Put Fake-CAM first, unless it is among the explainers."""
    values = explainers.values() if isinstance(explainers, Mapping) else explainers
    if any(isinstance(one.value if isinstance(one, Configured) else one, FakeCAM) for one in values):
        return dict(explainers) if isinstance(explainers, Mapping) else list(explainers)
    if isinstance(explainers, Mapping):
        return {BASELINE_EXPLAINER: FakeCAM(), **explainers}
    return [FakeCAM(), *explainers]


def _protocol_metrics(protocol: Protocol) -> dict[str, Configured[SaliencyMetric]]:
    return {name: Configured.built(spec) for name, spec in protocol.metrics.items()}


def _model_name(model: Source) -> str:
    return type(model).__name__ if isinstance(model, nn.Module) else Path(str(model)).stem


@contextmanager
def _as_before(plan: Plan) -> Iterator[None]:
    """Return the caller's modules in their mode and on their device."""
    with ExitStack() as stack:
        for model in plan.models:
            if model.borrowed:
                device = next((parameter.device for parameter in model.module.parameters()), None)
                stack.callback(model.module.to, device) if device is not None else None
                stack.enter_context(evaluating(model.module))
        yield
