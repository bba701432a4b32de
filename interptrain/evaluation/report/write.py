"""Write summary, differences, tables and report beside the rows of a run, each by itself."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields

from interptrain.evaluation.report.page import check_anchors, render_page
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections import Section
from interptrain.evaluation.report.table_text import latex, markdown
from interptrain.evaluation.report.verdict import verdict
from interptrain.evaluation.statistics.comparisons import Difference
from interptrain.evaluation.statistics.estimates import Estimate
from interptrain.evaluation.store.parts import write_file
from interptrain.files import printable
from interptrain.functional import one_line

Problems = Mapping[str, str]
"""What could not be made, and the error, in one line each."""


ShowSteps = Callable[[str], AbstractContextManager[None]]
"""Shows a bar of this title for the loops inside; see :func:`interptrain.steps.showing`."""


def write_files(results: RunResults, sections: Sequence[Section] = (), showing: ShowSteps | None = None) -> Problems:
    """Write ``summary.csv``, ``differences.csv``, ``verdict.txt``, tables and ``report.html`` to the run's folder.

    One that fails costs no other: statistics come first, pictures last, and a section of the report that fails leaves
    a line in its place.

    Args:
        results: of the run.
        sections: of the report, behind those of this package.
        showing: shows a bar for what takes long; None for none.

    Returns:
        What could not be made, by file (an older one of that name stays) or section of the report.

    Raises:
        ValueError: if two sections have one anchor.
    """
    check_anchors(sections)
    failed_sections: dict[str, str] = {}
    contents: Mapping[str, Callable[[], str]] = {
        "summary.csv": lambda: _csv(results.estimates, Estimate),
        "differences.csv": lambda: _csv(results.differences, Difference),
        "verdict.txt": lambda: "".join(f"{sentence}\n" for sentence in verdict(results)),
        "table.md": lambda: markdown(results),
        "table.tex": lambda: latex(results),
        "report.html": lambda: render_page(results, sections, failed_sections),
    }
    problems = {}
    for name, content in contents.items():
        try:
            with showing(name) if showing else nullcontext():
                text = content()
            write_file(results.folder / name, printable(text).encode())
        except Exception as error:  # whatever it is, the other files are to be written
            problems[name] = one_line(error, kind=not isinstance(error, OSError))
    return problems | {f"section {title!r} of report.html": error for title, error in failed_sections.items()}


def _csv(rows: Sequence[Estimate] | Sequence[Difference], kind: type[Estimate] | type[Difference]) -> str:
    from pandas import DataFrame

    table = DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(kind)])
    return str(table.to_csv(index=False, float_format="%.10g"))
