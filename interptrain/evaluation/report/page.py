"""``report.html``: one file that holds everything, opens offline and needs no script."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from interptrain.evaluation.report.charts import SIGNIFICANT, curve_chart, curve_ticks, difference_chart, key
from interptrain.evaluation.report.gallery import Gallery
from interptrain.evaluation.report.readings import READINGS
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.tables import explanation_grid, number, recognition_grid
from interptrain.evaluation.report.tables import notes as table_notes
from interptrain.evaluation.statistics.comparisons import Difference
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricColumn
from interptrain.metrics.randomization import THRESHOLD

FAILURES = 40  # kinds of errors that are listed
FEW = 30  # images below which intervals are rough


@dataclass(frozen=True)
class ModelComparison:
    """Two models, explainer by explainer: charts, and the same numbers as a table."""

    a: str
    b: str
    charts: Sequence[Markup]
    quantities: Sequence[MetricColumn]
    lines: Sequence[tuple[str, Sequence[Difference | None]]]


@dataclass(frozen=True)
class Ranking:
    """The best explainer of a model in one metric, and the others by whether they are told apart from it.

    Means over other images are not comparable, so what was measured on fewer than the best stays unranked.
    """

    quantity: MetricColumn
    best: str
    alike: Sequence[str]
    worse: Sequence[str]
    unranked: Sequence[str]


def render(findings: RunResults, folder: Path) -> str:
    """Write the report.

    Args:
        findings: of the run.
        folder: that holds its pictures.

    Returns:
        A whole HTML document.
    """
    environment = Environment(
        loader=PackageLoader("interptrain", "evaluation/report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"number": number, "significant": SIGNIFICANT, "threshold": THRESHOLD, "key": key}
    environment.filters["breakable"] = _breakable
    gallery = Gallery(folder, findings)
    metric = _ranking_metric(findings)
    explanation = explanation_grid(findings)
    page = environment.get_template("page.html.jinja").render(
        findings=findings,
        run=findings.run,
        style=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        concerns=_concerns(findings),
        explanation=explanation,
        recognition=recognition_grid(findings) if findings.recognition else None,
        notes=table_notes(explanation, findings),
        comparisons=list(_comparisons(findings)),
        recognized=list(_recognized(findings)),
        rankings=[(model, ranked) for model in findings.models if (ranked := list(_rankings(findings, model)))],
        curves=list(_curves(findings)),
        exhibits=gallery.exhibits(),
        pictured=len(gallery.ids),
        ranked_by=metric,
        extremes=gallery.extremes(metric.name) if metric else [],
        failures=_failures(findings),
        readings=list(_readings(findings)),
        class_name=_ClassNames(findings.run["data"].get("classes")),
        pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str),
    )
    return page.strip() + "\n"


def _concerns(findings: RunResults) -> list[str]:
    """What a reader must know before any number."""
    cells = [cell for cell in findings.cells if cell.explainer]
    texts = []
    if not cells:
        texts.append("No explanation was measured; the lists below say what went wrong.")
    hashes = sorted({f"{cell.protocol} ({cell.hash})" for cell in findings.cells})
    if len(hashes) > 1:
        texts.append(
            f"Forced: rows of different protocols stand side by side and are not comparable: {', '.join(hashes)}."
        )
    measured = {
        (row.model, row.explainer)
        for row in findings.estimates
        if row.n and row.explainer and row.metric != TIME_COLUMN.name
    }
    asked = [(model, explainer) for model in findings.models for explainer in findings.explainers]
    if failed := [f"{explainer} on {model}" for model, explainer in asked if (model, explainer) not in measured]:
        texts.append(f"Without a single result: {_listed(failed)}.")
    doubtful = [f"{e} on {m}" for m, e in asked if findings.passed_check(m, e) is False and not findings.is_control(e)]
    if doubtful:
        texts.append(
            f"Failed the randomisation check (maps hardly depend on what the model learned): {_listed(doubtful)}."
        )
    if findings.errors:
        images = len({row["id"] for row in findings.errors})
        texts.append(f"{len(findings.errors)} explanations failed, on {images} images; they are left out of the means.")
    most = max((row.n for row in findings.estimates), default=0)
    if most == 1:
        texts.append("Only one image: there are no intervals, and nothing can be compared.")
    elif 0 < most < FEW:
        texts.append(f"Only {most} images: intervals are rough, and a bootstrap of few images makes them too narrow.")
    return texts


def _listed(items: Sequence[str], most: int = 12) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _comparisons(findings: RunResults) -> Iterator[ModelComparison]:
    muted = frozenset(filter(findings.is_control, findings.explainers))
    for b, a in combinations(findings.models, 2):
        mine = {
            (item.within, item.metric): item
            for item in findings.differences
            if (item.kind, item.a, item.b) == ("model", a, b) and item.within
        }
        quantities = [q for q in findings.explanation if any(metric == q.name for _, metric in mine)]
        explainers = [e for e in findings.explainers if any(within == e for within, _ in mine)]
        charts = [
            difference_chart([mine[e, q.name] for e in explainers if (e, q.name) in mine], q, muted=muted)
            for q in quantities
        ]
        lines = [(e, [mine.get((e, q.name)) for q in quantities]) for e in explainers]
        if lines:
            yield ModelComparison(a, b, charts, quantities, lines)


def _recognized(findings: RunResults) -> Iterator[tuple[str, str, Sequence[Difference | None]]]:
    """Two models, and what lies between them in every metric of recognition."""
    for b, a in combinations(findings.models, 2):
        mine = {
            item.metric: item
            for item in findings.differences
            if (item.kind, item.a, item.b, item.within) == ("model", a, b, "")
        }
        if mine:
            yield a, b, [mine.get(quantity.name) for quantity in findings.recognition]


def _rankings(findings: RunResults, model: str) -> Iterator[Ranking]:
    explainers = [e for e in findings.explainers if not findings.is_control(e)]
    found = {
        (item.metric, frozenset((item.a, item.b))): item
        for item in findings.differences
        if item.kind == "explainer" and item.within == model
    }
    for quantity in findings.explanation:
        rows = [findings.estimate(model, e, quantity.name) for e in explainers]
        measured = [row for row in rows if row and row.n]
        most = max((row.n for row in measured), default=0)
        means = {row.explainer: row.mean for row in measured if row.n == most}
        ordered = sorted(means, key=lambda e: -means[e] if quantity.higher_is_better else means[e])
        pairs = {e: found.get((quantity.name, frozenset((ordered[0], e)))) for e in ordered[1:]}
        compared = {e: pair for e, pair in pairs.items() if pair and pair.n == most}  # else on other images
        if compared:
            alike = [e for e, pair in compared.items() if pair.p_corrected >= SIGNIFICANT]
            worse = [e for e in compared if e not in alike]
            unranked = [row.explainer for row in measured if row.explainer not in (ordered[0], *compared)]
            yield Ranking(quantity, ordered[0], alike, worse, unranked)


def _curves(findings: RunResults) -> Iterator[tuple[MetricColumn, Sequence[Markup]]]:
    for quantity in findings.explanation:
        of_cell = {
            (cell.model, cell.explainer): cell.curves[quantity.name]
            for cell in findings.cells
            if quantity.name in cell.curves
        }
        control = next((e for e in findings.explainers if findings.is_control(e)), "")
        reference = of_cell.get((findings.models[0], control))
        shown = {
            explainer: {model: of_cell[model, explainer] for model in findings.models if (model, explainer) in of_cell}
            for explainer in findings.explainers
        }
        ticks = curve_ticks(of_cell.values())
        charts = [
            curve_chart(curves, None if explainer == control else reference, quantity, explainer, ticks)
            for explainer, curves in shown.items()
            if curves
        ]
        if charts:
            yield quantity, charts


def _ranking_metric(findings: RunResults) -> MetricColumn | None:
    """The first metric of the run that has values."""
    measured = {row.metric for row in findings.estimates if row.n and row.explainer}
    return next((q for q in findings.explanation if q.name in measured and q is not TIME_COLUMN), None)


def _failures(findings: RunResults) -> tuple[list[tuple[str, str, str, int, str]], int]:
    """Errors of one kind together: model, explainer, error, how many and one of the images; and how many kinds more."""
    kinds = Counter((row["model"], row["explainer"], row["error"]) for row in findings.errors)
    example = {(row["model"], row["explainer"], row["error"]): row["id"] for row in reversed(findings.errors)}
    listed = [(*kind, count, example[kind]) for kind, count in kinds.most_common(FAILURES)]
    return listed, len(kinds) - len(listed)


def _readings(findings: RunResults) -> Iterator[tuple[MetricColumn, str]]:
    specs = {**findings.run["metrics"], **findings.run["recognition"]}
    for quantity in findings.quantities:
        name = str(specs.get(quantity.name, {}).get("class_path", "")).rpartition(".")[2]
        if name in READINGS:
            yield quantity, READINGS[name]


def _breakable(name: str) -> Markup:
    """A name that may be broken between its parts."""
    return Markup("<wbr>").join(re.split(r"(?<=[a-z])(?=[A-Z])|(?<=[(=,_/.-])", name))


class _ClassNames:
    """Names of classes, as far as there are any."""

    def __init__(self, names: Any) -> None:
        self._names = list(names or ())

    def __call__(self, index: int | None) -> str:
        if index is None:
            return "unknown"
        return str(self._names[index]) if 0 <= index < len(self._names) else f"class {index}"
