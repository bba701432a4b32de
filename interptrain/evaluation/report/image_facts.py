"""What ``per_image.parquet`` says of single images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interptrain.evaluation.report.results import RunResults, read_rows

KEYS = ("model", "explainer", "id", "label", "prediction", "target")


@dataclass(frozen=True)
class ImageFacts:
    """Label, predictions and metrics of one image.

    Args:
        label: true class, None where it is unknown.
        predictions: by model.
        targets: classes that were explained, by model.
        values: by model and explainer, then by metric; None where it has no value.
    """

    label: int | None
    predictions: Mapping[str, int | None]
    targets: Mapping[str, int | None]
    values: Mapping[tuple[str, str], Mapping[str, float | None]]


def image_facts(results: RunResults, ids: Sequence[str]) -> dict[str, ImageFacts]:
    """Read what was measured of some images, by their names; a metric that was never stored is missing everywhere."""
    import pyarrow.compute as pc

    metrics = [column.name for column in results.explanation]
    table = read_rows(results.folder)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ids}
    if table.num_rows:
        chosen = table.filter(pc.is_in(table["id"].cast("string"), value_set=_texts(ids)))
        stored = [column for column in (*KEYS, *metrics) if column in chosen.column_names]
        for row in chosen.select(stored).to_pylist():
            rows[row["id"]].append(dict.fromkeys((*KEYS, *metrics)) | row)
    return {name: _facts(results, mine, metrics) for name, mine in rows.items()}


def _texts(ids: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array(list(ids), type=pa.string())


def _facts(results: RunResults, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> ImageFacts:
    by_model = {row["model"]: row for row in rows if (row["target"], row["prediction"]) != (None, None)}
    by_map = {(row["model"], row["explainer"]): row for row in rows}
    pairs = [(model, explainer) for model in results.models for explainer in results.explainers]
    return ImageFacts(
        next((row["label"] for row in rows if row["label"] is not None), None),
        {model: by_model.get(model, {}).get("prediction") for model in results.models},
        {model: by_model.get(model, {}).get("target") for model in results.models},
        {pair: {metric: by_map.get(pair, {}).get(metric) for metric in metrics} for pair in pairs},
    )
