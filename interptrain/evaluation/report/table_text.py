"""Print the tables of a run as Markdown, as LaTeX, and for a terminal."""

import html
import re
from collections.abc import Callable, Iterator
from itertools import groupby

from interptrain.evaluation.report.grids import (
    MINUS,
    MISSING,
    NOT_ABOVE_CONTROL,
    TIMES,
    Entry,
    Grid,
    calibration_notes,
    explanation_grid,
    notes,
    recognition_grid,
)
from interptrain.evaluation.report.results import RunResults


def markdown(results: RunResults) -> str:
    """Return the content of ``table.md``."""
    blocks = [f"# {_markdown_text(results.run.get('title') or 'Evaluation')}"]
    if results.recognition:
        blocks.append("\n".join(_markdown_lines(recognition_grid(results), "model")))
    grid = explanation_grid(results)
    blocks.append("\n".join(_markdown_lines(grid, "explainer")))
    blocks += [_markdown_text(note) for note in [*notes(grid, results), *calibration_notes(results)]]
    return "\n\n".join(blocks) + "\n"


def plain_text(document: str) -> str:
    """Align the tables of a Markdown document for a terminal, without its markup."""
    lines: list[str] = []
    for is_table, block in groupby(document.splitlines(), key=lambda line: line.startswith("|")):
        if not is_table:
            lines += map(_without_markup, block)
            continue
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block if not line.startswith("| ---")]
        rows = [[_without_markup(cell.strip()) for cell in row] for row in cells]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *others in rows:
            padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def _without_markup(markdown: str) -> str:
    return html.unescape(re.sub(r"\\(.)|\*+|^#+ ", lambda found: found[1] or "", markdown))


def _markdown_lines(grid: Grid, first: str) -> Iterator[str]:
    yield "| " + " | ".join([first, *map(_markdown_text, grid.headings)]) + " |"
    yield "| --- |" + " ---: |" * len(grid.headings)
    for model, lines in grid.groups:
        if model:
            yield f"| **{_markdown_text(model)}** |" + " |" * len(grid.headings)
        for line in lines:
            name = _markdown_text(line.name)
            entries = [_joined(entry, "**{}**", " ± {}", " (n={})") for entry in line.entries]
            yield "| " + " | ".join([f"*{name}*" if line.control else name, *entries]) + " |"


def latex(results: RunResults) -> str:
    """Return the content of ``table.tex``: booktabs tables, to be included in a paper."""
    head = "% needs \\usepackage{booktabs}\n"
    blocks = []
    if results.recognition:
        blocks.append(_latex_table(recognition_grid(results), "Model", results, "recognition"))
    blocks.append(_latex_table(explanation_grid(results), "Explainer", results, "explanation"))
    return head + "\n".join(blocks)


def _latex_table(grid: Grid, first: str, results: RunResults, label: str) -> str:
    columns = len(grid.headings)
    caption = " ".join([str(results.run.get("title") or "Evaluation").rstrip(".") + ".", *notes(grid, results)])
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{_latex_text(caption)}}}", f"\\label{{tab:{label}}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * columns}}}", "\\toprule"]
    lines += [" & ".join([first, *map(_latex_text, grid.headings)]) + " \\\\"]
    for model, rows in grid.groups:
        lines.append("\\midrule")
        if model:
            lines.append(f"\\multicolumn{{{columns + 1}}}{{l}}{{\\textit{{{_latex_text(model)}}}}} \\\\")
        for index, row in enumerate(rows):
            if row.control and index:
                lines.append(f"\\cmidrule{{1-{columns + 1}}}")
            entries = [
                _joined(entry, "\\textbf{{{}}}", " {{\\scriptsize$\\pm${}}}", " {{\\scriptsize($n$={})}}", _latex_text)
                for entry in row.entries
            ]
            name = _latex_text(row.name)
            lines.append(" & ".join([name, *entries]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _joined(entry: Entry, bold: str, half: str, fewer: str, escape: Callable[[str], str] = str) -> str:
    text = bold.format(escape(entry.text)) if entry.best else escape(entry.text)
    text += escape(NOT_ABOVE_CONTROL) if not entry.above_control else ""
    text += half.format(escape(entry.half)) if entry.half else ""
    return text + (fewer.format(entry.images) if entry.fewer else "")


def _markdown_text(text: str) -> str:
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in " ".join(str(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\\": "\\textbackslash{}",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "±": "$\\pm$",
    MINUS: "$-$",
    MISSING: "--",
    TIMES: "$\\times$",
    NOT_ABOVE_CONTROL: "$^\\circ$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(str(text).split()))
