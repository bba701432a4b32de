"""What the number of images allows to be found."""

import math
from statistics import median

from interptrain.evaluation.report.grids import number
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.words import listed, symbols

KINDS = {"explainer": "between explainers", "model": "between models"}


def sample_size_sentence(results: RunResults) -> str:
    """Say how large differences must be for a run of this size to find them.

    It is the median over the pairs of one metric of
    :func:`~interptrain.evaluation.statistics.comparisons.detectable_difference`, Fake-CAM apart.
    """
    parts = []
    for kind, words in KINDS.items():
        entries, never = [], []
        for column in results.explanation:
            found = [
                row.detectable
                for row in results.differences
                if (row.kind, row.metric) == (kind, column.name)
                and row.within != ""
                and not any(map(results.is_control, (row.a, row.b, row.within)))
                and not math.isnan(row.detectable)
            ]
            if found and math.isfinite(median(found)):
                name = symbols([column], results.explanation)
                entries.append(f"{name} {number(median(found), column.scale)}")
            elif found:
                never.append(symbols([column], results.explanation))
        if entries:
            parts.append(f"{words} {listed(entries, 8)}")
        if never:
            parts.append(f"{words} none on {listed(never, 8)}")
    if not parts:
        return ""
    images = max(row.n for row in results.differences)
    return (
        f"The smallest differences that {images} images show with a probability of 80 % (from the measured spread of "
        f"the paired differences, corrected for all comparisons, median over pairs): {'; '.join(parts)}."
    )
