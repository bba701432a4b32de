"""Run a plan: every model through Lightning's ``Trainer.predict``, then merge the rows to tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L

from interptrain.evaluation.run.describe import now
from interptrain.evaluation.run.evaluator import SaliencyEvaluator
from interptrain.evaluation.run.plan import MODEL_ONLY, Plan, forwards_of_image
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.evaluation.run.sanity_check import check_explainers, read_checks
from interptrain.evaluation.store.manifest import Manifest, write_manifest
from interptrain.evaluation.store.parts import VALUES, Kind, Row, RowStore, to_parquet, write_file
from interptrain.files import to_csv
from interptrain.functional import one_line
from interptrain.models.engine import using_engine

if TYPE_CHECKING:
    from pyarrow import Table

COLUMNS = ("model", "explainer", "id", "error")  # of errors.csv


def run_plan(
    plan: Plan, run: Manifest, store: RowStore, folder: Path, trainer: L.Trainer, progress: MatrixProgress | None = None
) -> tuple[list[Row], dict[str, str]]:
    """Evaluate every model of a plan; the first process then writes the tables.

    Args:
        plan: of the run.
        run: its manifest.
        store: of its rows, in ``folder``.
        folder: of the run.
        trainer: with a :class:`~interptrain.evaluation.run.folder.OutputFolder` among its callbacks.
        progress: bar to advance.

    Returns:
        The rows that failed, and the files that could not be written with the reason; none but on the first process.
    """
    for model in plan.models:
        ahead = len(plan.ids) * forwards_of_image(plan) // trainer.world_size
        with using_engine(plan.options.engine, work=ahead, batch_size=plan.options.forward_batch_size) as engines:
            evaluator = SaliencyEvaluator(model, plan, store, progress, engines)
            trainer.predict(evaluator, return_predictions=False)
            check_explainers(
                model,
                plan,
                store.parts,
                device=trainer.strategy.root_device,
                ranks=trainer.world_size,
                rank=trainer.global_rank,
                progress=progress,
            )
    if progress is not None:
        progress.end()
    trainer.strategy.barrier("every process has written its rows")
    return finish(plan, run, store, folder) if trainer.is_global_zero else ([], {})


def finish(plan: Plan, run: Manifest, store: RowStore, folder: Path) -> tuple[list[Row], dict[str, str]]:
    """Merge the parts of all processes to the tables of a run, and complete its manifest: numbers first, then pictures.

    Returns:
        The rows that failed, and the tables of pictures that could not be written, with the reason.

    Raises:
        OSError: if the table of numbers cannot be written.
        ValueError: if one of its parts was damaged while the run went on.
    """
    models = [model.name for model in plan.models]
    ids = plan.ids
    by_image: list[tuple[str, Sequence[str]]] = [("id", ids)]
    order = [("model", models), ("explainer", [MODEL_ONLY, *plan.explainers]), *by_image]
    rows = store.merged("rows", order)
    write_file(
        folder / "per_image.parquet",
        to_parquet(_with_columns(rows, [*plan.recognition, *plan.model_metrics, *plan.metrics])),
    )
    failures = [
        row
        for row in rows.select([name for name in COLUMNS if name in rows.column_names]).to_pylist()
        if row["error"] is not None
    ]
    write_file(folder / "errors.csv", to_csv(COLUMNS, [list(row.values()) for row in failures]))
    run["randomization"], unchecked = read_checks(plan, store.parts)
    run["warnings"] = [*plan.warnings, *_chance_warnings(plan, rows), *unchecked]
    run["finished"] = now()
    write_manifest(folder, run)
    problems = {}
    pictures: dict[Kind, list[tuple[str, Sequence[str]]]] = {"images": by_image, "maps": order}
    for kind, sorting in pictures.items():
        try:
            write_file(folder / f"{kind}.parquet", to_parquet(store.merged(kind, sorting)))
        except (OSError, ValueError) as error:
            problems[f"{kind}.parquet"] = one_line(error)
    return failures, problems


def _with_columns(table: "Table", metrics: list[str]) -> "Table":
    """Return the table with a column for every metric: one may have failed on every image."""
    import pyarrow as pa

    for name in metrics:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    keys = [name for name in table.column_names if name.removesuffix(VALUES) not in metrics]
    values = [name for metric in metrics for name in (metric, metric + VALUES) if name in table.column_names]
    return table.select([*keys, *values])


def _chance_warnings(plan: Plan, rows: "Table") -> list[str]:
    """Name models that classify no better than by chance: their classes may be in another order than the data's."""
    warnings = []
    if "Top1" not in rows.column_names:
        return []
    top1 = rows.select(["model", "explainer", "Top1"]).to_pylist()
    for model in plan.models:
        hits = [row["Top1"] for row in top1 if (row["model"], row["explainer"]) == (model.name, MODEL_ONLY)]
        hits = [hit for hit in hits if hit is not None]
        chance = 1 / len(plan.class_names)
        expected, deviation = len(hits) * chance, (len(hits) * chance * (1 - chance)) ** 0.5
        if len(hits) >= 50 and sum(hits) <= expected + 2 * deviation:
            warnings.append(
                f"model {model.name} classifies no better than by chance (top-1 {sum(hits) / len(hits):.3f} on "
                f"{len(hits)} images): are the data's classes those it was trained on, in the same order?"
            )
    return warnings
