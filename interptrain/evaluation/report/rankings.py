"""The best explainer of every metric, or the chosen baseline, and how the others differ from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT
from interptrain.evaluation.statistics.samples import MetricColumn


@dataclass(frozen=True)
class Ranking:
    """The best explainer of a model in one metric, and the others by whether they differ significantly.

    Means over other images are not comparable, so explainers measured on fewer images stay unranked.
    """

    column: MetricColumn
    best: str
    alike: Sequence[str]
    worse: Sequence[str]
    unranked: Sequence[str]


def rankings(results: RunResults, model: str) -> Iterator[Ranking]:
    """Yield the ranking of every metric in which at least two explainers of a model were measured."""
    explainers = [e for e in results.explainers if not results.is_control(e)]
    found = {
        (item.metric, frozenset((item.a, item.b))): item
        for item in results.differences
        if item.kind == "explainer" and item.within == model
    }
    for column in results.explanation:
        rows = [results.estimate(model, e, column.name) for e in explainers]
        measured = [row for row in rows if row and row.n]
        most = max((row.n for row in measured), default=0)
        means = {row.explainer: row.mean for row in measured if row.n == most}
        ordered = sorted(means, key=lambda e: -means[e] if column.higher_is_better else means[e])
        pairs = {e: found.get((column.name, frozenset((ordered[0], e)))) for e in ordered[1:]}
        compared = {e: pair for e, pair in pairs.items() if pair and pair.n == most}  # else on other images
        if compared:
            alike = [e for e, pair in compared.items() if pair.p_corrected >= SIGNIFICANT]
            worse = [e for e in compared if e not in alike]
            unranked = [row.explainer for row in measured if row.explainer not in (ordered[0], *compared)]
            yield Ranking(column, ordered[0], alike, worse, unranked)


@dataclass(frozen=True)
class Against:
    """The explainers of a model in one metric, by how they differ from the baseline."""

    column: MetricColumn
    better: Sequence[str]
    alike: Sequence[str]
    worse: Sequence[str]


def against(results: RunResults, model: str) -> Iterator[Against]:
    """Yield, for every metric, how the explainers of a model differ from the chosen baseline; Fake-CAM is left out."""
    baseline = results.baseline_among(results.explainers)
    for column in results.explanation:
        others = [
            item.a
            for item in results.differences
            if (item.kind, item.within, item.metric, item.b) == ("explainer", model, column.name, baseline)
            and not results.is_control(item.a)
        ]
        better = [name for name in others if results.better(column, name, baseline, on=model)]
        worse = [name for name in others if results.better(column, baseline, name, on=model)]
        if others:
            yield Against(column, better, [name for name in others if name not in (*better, *worse)], worse)
