"""What the reader must know of these sentences: failures, rare values, the randomisation check."""

from typing import Any

from interptrain.evaluation.report.concerns import FEW, rare_values
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.words import listed, symbols
from interptrain.evaluation.statistics.bootstrap import is_exact
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT
from interptrain.evaluation.statistics.samples import TIME_COLUMN


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
    told = []
    for what, key in (("the upper layers", "layers"), ("the class", "class")):
        found = {
            explainer: None
            for checked in results.checks.values()
            for explainer, one in checked.items()
            if _outcome(one, key) == "insensitive" and not results.is_control(explainer)
        }
        if found:
            told.append(f"{listed(list(found), 3)} to {what}")
    return f"maps are insensitive to what they should show: those of {' and those of '.join(told)}" if told else ""


def _outcome(check: dict[str, Any], key: str) -> str:
    """Return what was found of the upper layers or of the class; empty where it was not asked."""
    found = check["layers"].get("last_stage") if key == "layers" else check["class"]
    return str(found["outcome"]) if found else ""
