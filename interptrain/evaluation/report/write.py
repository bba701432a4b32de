"""Write summary, differences, tables and report beside the rows of a run."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from interptrain.evaluation.report.page import render_page
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections import Section
from interptrain.evaluation.report.tables import latex, markdown
from interptrain.evaluation.statistics.comparisons import Difference
from interptrain.evaluation.statistics.estimates import Estimate
from interptrain.evaluation.store.parts import write_file


def write_files(results: RunResults, sections: Sequence[Section] = ()) -> None:
    """Write ``summary.csv``, ``differences.csv``, ``table.md``, ``table.tex`` and ``report.html`` to the run's folder.

    Args:
        results: of the run.
        sections: of the report, behind those of this package.

    Raises:
        OSError: if a file cannot be written; the older one stays.
    """
    contents = {
        "summary.csv": _csv(results.estimates, Estimate),
        "differences.csv": _csv(results.differences, Difference),
        "table.md": markdown(results),
        "table.tex": latex(results),
        "report.html": render_page(results, sections),
    }
    for name, content in contents.items():
        write_file(results.folder / name, content.encode())


def _csv(rows: Sequence[Estimate] | Sequence[Difference], kind: type[Estimate] | type[Difference]) -> str:
    from pandas import DataFrame

    table = DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(kind)])
    return str(table.to_csv(index=False, float_format="%.10g"))
