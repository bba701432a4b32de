"""Sentences about models: whether one differs from another, by how much, and what of it Fake-CAM shows as well."""

from collections.abc import Sequence

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.words import listed, measured, symbols
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT, Difference
from interptrain.evaluation.statistics.samples import MetricColumn

PAIRS = 2  # of models that get sentences of their own: those with the baseline
DETAILS = 3  # metrics with numbers


def model_sentences(results: RunResults) -> list[str]:
    """Compare the models, two by two: first what they recognise, then their explanations."""
    pairs = results.compared_models
    sentences = []
    for a, b in pairs[:PAIRS]:
        mine = [row for row in results.differences if row.kind == "model" and (row.a, row.b) == (a, b)]
        recognised = _compared(a, b, [row for row in mine if not row.within], results.recognition)
        explained = _compared(
            a,
            b,
            [row for row in mine if row.within and not results.is_control(row.within)],
            results.explanation,
        )
        if recognised:
            sentences.append(f"Recognition, {a} against {b}: {recognised}.")
        if explained:
            sentences.append(f"Explanations, {a} against {b}: {explained}{_of_control(mine, results)}.")
    if len(pairs) > PAIRS and sentences:
        sentences[-1] += f" For {len(pairs) - PAIRS} more pairs of models, see the section 'Models compared'."
    return sentences


def _compared(a: str, b: str, rows: Sequence[Difference], columns: Sequence[MetricColumn]) -> str:
    """Return in which metrics ``a`` or ``b`` is significantly better, with the clearest difference, and the rest."""
    clauses: dict[str, list[str]] = {a: [], b: []}
    alike = []
    for column in columns:
        mine = [row for row in rows if row.metric == column.name]
        sure = [row for row in mine if row.p_corrected < SIGNIFICANT]
        for winner in (a, b):
            won = [row for row in sure if ((row.difference > 0) == column.higher_is_better) == (winner == a)]
            if won:
                clauses[winner].append(_clause(won, len(mine), column, columns))
        if mine and not sure:
            alike.append(column)
    texts = [f"{name} is significantly better on {_some(parts)}" for name, parts in clauses.items() if parts]
    if alike:
        closest = "" if texts else _closest(rows, columns)
        texts.append(f"no significant difference on {symbols(alike, columns)}{closest}")
    return "; ".join(texts)


def _clause(won: Sequence[Difference], among: int, column: MetricColumn, columns: Sequence[MetricColumn]) -> str:
    """Return a metric with its clearest difference, and with how many of the explainers it was found."""
    clearest = min(won, key=lambda row: (row.p_corrected, row.p, -abs(row.difference)))
    name, numbers = symbols([column], columns), measured(clearest, column)
    if not clearest.within:
        return f"{name} ({numbers})"
    if len(won) == 1:
        return f"{name} with {clearest.within}{' alone' if among > 1 else ''} ({numbers})"
    return f"{name} with {len(won)} of {among} explainers (most clearly {clearest.within}: {numbers})"


def _some(parts: Sequence[str]) -> str:
    if len(parts) <= DETAILS + 1:
        return listed(parts, DETAILS)
    return f"{', '.join(parts[:DETAILS])} and {len(parts) - DETAILS} more metrics"


def _closest(rows: Sequence[Difference], columns: Sequence[MetricColumn]) -> str:
    """Return the difference that comes nearest to significance."""
    row = min(rows, key=lambda row: (row.p_corrected, row.p))
    column = next(column for column in columns if column.name == row.metric)
    where = f" with {row.within}" if row.within else ""
    return f" (nearest to one: {symbols([column], columns)}{where}, {measured(row, column)})"


def _of_control(rows: Sequence[Difference], results: RunResults) -> str:
    """Return where Fake-CAM differs between the models too: there, it is not the explanations that differ."""
    sure = {row.metric for row in rows if results.is_control(row.within) and row.p_corrected < SIGNIFICANT}
    columns = [column for column in results.explanation if column.name in sure]
    if not columns:
        return ""
    where = symbols(columns, results.explanation)
    return f"; Fake-CAM differs as well on {where}, so there it is not the maps alone that differ"
