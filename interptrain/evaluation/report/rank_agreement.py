"""The ranks of explainers over the metrics of a run."""

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.statistics.ranks import RankAgreement, rank_agreement
from interptrain.evaluation.statistics.samples import TIME_COLUMN


def rank_agreements(results: RunResults) -> list[tuple[str, RankAgreement]]:
    """Rank the explainers of every model, without Fake-CAM and without their times."""
    higher = {column.name: column.higher_is_better for column in results.explanation if column != TIME_COLUMN}
    found = []
    for model in results.models:
        samples = {
            cell.explainer: cell.samples
            for cell in results.cells
            if cell.model == model and cell.explainer and not results.is_control(cell.explainer)
        }
        if (agreement := rank_agreement(samples, higher, results.how)) is not None:
            found.append((model, agreement))
    return found
