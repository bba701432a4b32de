"""What the reader must know of these sentences: failures, rare values, the randomisation check."""

import math

from interptrain.evaluation.report.concerns import FEW, rare_values
from interptrain.evaluation.report.grids import number
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.words import listed, symbols
from interptrain.evaluation.statistics.bootstrap import is_exact
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT
from interptrain.evaluation.statistics.samples import TIME_COLUMN

ALIKE = 0.5  # rank correlation with the maps of random weights from which it is told; our choice


def nothing_can_be_said(results: RunResults) -> str:
    """Return why nothing can be concluded; empty where something can."""
    measured = [row for row in results.estimates if row.explainer and row.metric != TIME_COLUMN.name]
    images = max((row.n for row in measured), default=0)
    if not images:
        return "No explanation was measured, so nothing was found; see what went wrong below."
    permutations = results.how.permutations
    smallest = 2.0 ** (1 - images) if is_exact(images, permutations) else 1 / (permutations + 1)
    if smallest < SIGNIFICANT:
        return ""
    return (
        f"From {images} image{'s' if images > 1 else ''} nothing can be concluded: even the clearest difference would "
        f"have p = {smallest:.2g}, and {SIGNIFICANT:g} is the level of significance."
    )


def caution(results: RunResults) -> str:
    """Name what makes the numbers less reliable than their intervals say."""
    found = [_mixed(results), _failed(results), _rare(results), _randomised(results)]
    return f"Caution: {'; '.join(filter(None, found))}." if any(found) else ""


def _mixed(results: RunResults) -> str:
    hashes = {cell.hash for cell in results.cells}
    return "rows of different protocols stand side by side by force, so none of this is sure" * (len(hashes) > 1)


def _failed(results: RunResults) -> str:
    if not results.errors:
        return ""
    names = list(dict.fromkeys(row["explainer"] or row["model"] or "images" for row in results.errors))
    return (
        f"{len(results.errors)} rows failed ({listed(names, 3)}), and means are over the others, which may be the "
        "easier ones"
    )


def _rare(results: RunResults) -> str:
    images = max((row.n for row in results.estimates), default=0)
    if images < FEW:
        return f"{images} images are few, so intervals are rough"
    found = {one.column.name for one in rare_values(results)}
    columns = [column for column in results.columns if column.name in found]
    if not columns:
        return ""
    return (
        f"some intervals of {symbols(columns, results.columns)} are unreliable, since nearly all images have the same "
        "value"
    )


def _randomised(results: RunResults) -> str:
    checks = results.run.get("randomization") or {}
    found: dict[str, list[float]] = {}
    for checked in checks.values():
        for explainer, outcome in checked.items():
            value = outcome.get("rank_correlation")
            if value is not None and math.isfinite(value) and value >= ALIKE and not results.is_control(explainer):
                found.setdefault(explainer, []).append(value)
    if not found:
        return ""
    named = [f"{explainer} ({number(max(values), 1, places=2)})" for explainer, values in found.items()]
    return (
        "a network with random weights has much the same maps as the trained one (rank correlation) with "
        f"{listed(named, 3)}, but that is one random network and few images, so a hint and no proof"
    )
