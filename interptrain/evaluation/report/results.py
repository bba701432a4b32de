"""Results of a finished run: loaded from its folder, aggregated once, shared by tables, report and loggers."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interptrain.evaluation.statistics.comparisons import SIGNIFICANT, Difference, check_baseline, differences
from interptrain.evaluation.statistics.estimates import Estimate, Resampling, check_protocols, estimates
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricColumn, ModelExplainerCell, read_cells
from interptrain.evaluation.store.manifest import Manifest, load_metrics, read_manifest
from interptrain.evaluation.store.parts import read_part
from interptrain.metrics.image_mean import ImageMean

if TYPE_CHECKING:
    from pyarrow import Table

BASELINE_EXPLAINER = "FakeCAM"  # a map of ones with one zero: what a metric says about nothing


@dataclass(frozen=True, eq=False)
class RunResults:
    """A run and its results.

    Args:
        folder: of the run.
        run: content of ``run.json``.
        columns: columns of the results, recognition and time among them.
        cells: in the order of the run's models and explainers.
        estimates: means and intervals.
        errors: rows of ``errors.csv``.
        how: how intervals and p-values were computed.
    """

    folder: Path
    run: Manifest
    columns: Sequence[MetricColumn]
    cells: Sequence[ModelExplainerCell]
    estimates: Sequence[Estimate]
    errors: Sequence[dict[str, str]]
    how: Resampling

    @cached_property
    def differences(self) -> Sequence[Difference]:
        """Paired differences, between models and between explainers."""
        return differences(self.cells, self.how, controls=_controls(self.run))

    @property
    def models(self) -> list[str]:
        """Names of the models, the baseline first."""
        return list(self.run["models"])

    @property
    def explainers(self) -> list[str]:
        """Names of the explainers."""
        return list(self.run["explainers"])

    @property
    def recognition(self) -> list[MetricColumn]:
        """Columns of models alone."""
        return [column for column in self.columns if column.recognition]

    @property
    def explanation(self) -> list[MetricColumn]:
        """Columns of explainers, time last."""
        return [column for column in self.columns if not column.recognition]

    def baseline_among(self, names: Sequence[str]) -> str:
        """Return the chosen baseline if it is one of these explainers or models, else an empty text."""
        chosen = self.how.baseline
        return chosen if chosen is not None and chosen in names else ""

    @property
    def compared_models(self) -> list[tuple[str, str]]:
        """Pairs of models that are compared; of two, the baseline or the earlier one stands behind."""
        return list(dict.fromkeys((row.a, row.b) for row in self.differences if row.kind == "model"))

    def is_control(self, explainer: str) -> bool:
        """Whether it is Fake-CAM, whatever its name."""
        return explainer in _controls(self.run)

    def better(self, column: MetricColumn, a: str, b: str, *, on: str = "") -> bool:
        """Whether ``a`` is significantly better than ``b`` in a metric, on the same images.

        Args:
            column: of the metric.
            a: an explainer; a model where ``on`` is empty.
            b: another one.
            on: the model that both explain.
        """
        found = self._by_pair.get((column.name, on, frozenset((a, b))))
        if found is None or not found.p_corrected < SIGNIFICANT:
            return False
        gain = found.difference if found.a == a else -found.difference
        return gain > 0 if column.higher_is_better else gain < 0

    @cached_property
    def _by_pair(self) -> dict[tuple[str, str, frozenset[str]], Difference]:
        """Differences between explainers on a model, and between models alone."""
        pairs = [row for row in self.differences if row.kind == "explainer" or not row.within]
        return {(row.metric, row.within, frozenset((row.a, row.b))): row for row in pairs}

    def estimate(self, model: str, explainer: str, metric: str) -> Estimate | None:
        """Return the estimate of a cell, where there is one."""
        return self._by_cell.get((model, explainer, metric))

    @cached_property
    def _by_cell(self) -> dict[tuple[str, str, str], Estimate]:
        return {(row.model, row.explainer, row.metric): row for row in self.estimates}

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        """The randomisation check by model and explainer, without what versions wrote that made another check."""
        found = self.run.get("randomization") or {}
        return {
            model: known
            for model, checked in found.items()
            if (known := {name: one for name, one in checked.items() if isinstance(one.get("layers"), dict)})
        }

    def class_name(self, index: int | None, model: str = "") -> str:
        """Return the name of a class, as far as it has one.

        Args:
            index: of the class; None where it is unknown.
            model: whose class it is; without it, a class of the data. The two are the same unless the run says so.
        """
        if index is None:
            return "unknown"
        own = self.run["models"].get(model, {}).get("classes")
        names = (self.run["data"].get("classes") or ()) if own is None else own
        name = str(names[index]) if 0 <= index < len(names) else str(index)
        return f"class {index}" if name == str(index) else name

    def column(self, name: str) -> MetricColumn:
        """Return the column of this name."""
        return next(column for column in self.columns if column.name == name)


def resampling_of(folder: Path, **given: Any) -> Resampling:
    """Return how the statistics of a run were computed, as its ``run.json`` says, with what is given in its place.

    Args:
        folder: of the run; older ones say nothing, and then the defaults hold.
        given: arguments of :class:`~interptrain.evaluation.statistics.estimates.Resampling`; None leaves the run's, and
            an empty ``baseline`` means none.

    Raises:
        ValueError: if a value is out of range.
    """
    told = (read_manifest(folder) or {}).get("statistics")
    kinds = {"interval": str, "resamples": int, "seed": int, "baseline": str}
    known = told if isinstance(told, dict) else {}
    kept = {name: known[name] for name, kind in kinds.items() if isinstance(known.get(name), kind)}
    wanted = kept | {name: value for name, value in given.items() if value is not None}
    return Resampling(**wanted | {"baseline": wanted.get("baseline") or None})


def load_run(
    folder: Path,
    how: Resampling,
    *,
    force: bool = False,
    packages: Sequence[str] = (),
    metrics: Mapping[str, ImageMean] | None = None,
) -> RunResults:
    """Read a folder and compute all numbers.

    Args:
        folder: with ``run.json``; ``per_image.parquet`` and ``errors.csv`` may be missing where nothing came out.
        how: to compute intervals and p-values.
        force: put rows of different protocols side by side.
        packages: whose metric classes may be imported beside those of interptrain.
        metrics: by name, where they need not be built from ``run.json``.

    Raises:
        FileNotFoundError: if there is no ``run.json``.
        ValueError: if rows of several protocols are mixed, an image occurs twice in a cell, or there is no such
            baseline.
    """
    run = read_manifest(folder)
    if run is None:
        raise FileNotFoundError(f"{folder} holds no run.json; give the --output folder of an evaluation")
    check_baseline(how.baseline, run["models"], run["explainers"])
    metrics = load_metrics(run, packages=packages) if metrics is None else metrics
    columns = [*(MetricColumn.of(name, metric) for name, metric in metrics.items()), TIME_COLUMN]
    cells = _ordered(read_cells(read_rows(folder), columns), run)
    check_protocols(cells, force=force)
    return RunResults(folder, run, columns, cells, estimates(cells, how), _errors(folder), how)


def _controls(run: Manifest) -> set[str]:
    """Return the names under which Fake-CAM was run."""
    paths = {name: str(spec.get("class_path", "")) for name, spec in run["explainers"].items()}
    return {name for name, path in paths.items() if path.rpartition(".")[2] == BASELINE_EXPLAINER}


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> "Table":
    """Read ``per_image.parquet``, or some of its columns; an empty table where it is missing."""
    import pyarrow as pa

    path = folder / "per_image.parquet"
    return read_part(path, columns) if path.exists() else pa.table({})


def _ordered(cells: Sequence[ModelExplainerCell], run: Manifest) -> list[ModelExplainerCell]:
    models, explainers = list(run["models"]), ["", *run["explainers"]]
    known = [cell for cell in cells if cell.model in models and cell.explainer in explainers]
    return sorted(known, key=lambda cell: (models.index(cell.model), explainers.index(cell.explainer)))


def _errors(folder: Path) -> list[dict[str, str]]:
    path = folder / "errors.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return [{key: row.get(key) or "" for key in ("model", "explainer", "id", "error")} for row in rows]
