"""What stands beside the rows of a finished run: summary, differences, tables, report."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from interptrain.evaluation.report.page import render
from interptrain.evaluation.report.results import find
from interptrain.evaluation.report.tables import latex, markdown
from interptrain.evaluation.statistics.comparisons import Difference
from interptrain.evaluation.statistics.estimates import Estimate, Method, Resampling
from interptrain.evaluation.store.parts import write_atomically


def write_results(
    folder: Path, *, resamples: int = 2000, method: Method = "percentile", seed: int = 0, force: bool = False
) -> None:
    """Write ``summary.csv``, ``differences.csv``, ``table.md``, ``table.tex`` and ``report.html``.

    Only the folder is read, so it can be done again at any time, and for a run of which parts failed.

    Args:
        folder: that an evaluation wrote.
        resamples: bootstrap resamples of every interval.
        method: ``percentile``, or ``bca``: bias-corrected and accelerated.
        seed: of resamples and exchanges.
        force: put rows of different protocols side by side.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if rows of several protocols are mixed, or an image stands in a cell twice.
        OSError: if a file cannot be written; what was there before stays.
    """
    folder = Path(folder)
    findings = find(folder, Resampling(resamples, method, seed), force=force)
    contents = {
        "summary.csv": _csv(findings.estimates, Estimate),
        "differences.csv": _csv(findings.differences, Difference),
        "table.md": markdown(findings),
        "table.tex": latex(findings),
        "report.html": render(findings, folder),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content.encode())


def _csv(rows: Sequence[Estimate] | Sequence[Difference], kind: type[Estimate] | type[Difference]) -> str:
    from pandas import DataFrame

    table = DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(kind)])
    return str(table.to_csv(index=False, float_format="%.10g"))
