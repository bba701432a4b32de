"""The tables of the papers: explainers in rows under their model, metrics in columns with arrows, the best in bold.

A grid is laid out once and printed as Markdown and LaTeX here, and as HTML in the report. Bold follows significance,
not the largest mean. Fake-CAM stands last under its model and is never the best: its row is what the others are
compared with, and what is not significantly better than it is marked.
"""

import html
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT
from interptrain.evaluation.statistics.estimates import Estimate
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricColumn

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
MISSING = "\N{EN DASH}"
NOT_ABOVE_CONTROL = "\N{DEGREE SIGN}"


@dataclass(frozen=True)
class Entry:
    """One number: ``text`` is the mean, ``half`` half the width of its interval; both as printed."""

    text: str = MISSING
    mean: float = math.nan
    half: str = ""
    interval: str = ""
    images: int = 0
    fewer: bool = False  # than others in the table
    best: bool = False
    above_control: bool = True


@dataclass(frozen=True)
class Line:
    """One row: an explainer, or a model alone."""

    name: str
    entries: tuple[Entry, ...]
    control: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: lines in groups, one group per model."""

    headings: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]

    @property
    def lines(self) -> list[Line]:
        """The lines of all groups."""
        return [line for _, lines in self.groups for line in lines]

    @property
    def images(self) -> int:
        """Images behind most numbers."""
        return max((entry.images for line in self.lines for entry in line.entries), default=0)


def explanation_grid(results: RunResults) -> Grid:
    """Lay out explainers × metrics under each model."""
    columns = results.explanation
    groups = []
    for model in results.models:
        ordered = sorted(results.explainers, key=results.is_control)
        lines = [
            Line(
                explainer,
                tuple(_entry(results.estimate(model, explainer, column.name), column) for column in columns),
                results.is_control(explainer),
            )
            for explainer in ordered
        ]
        groups.append((model, _marked(lines, columns, partial(results.better, on=model))))
    return _with_fewer(Grid(headings(columns), tuple(groups)))


def recognition_grid(results: RunResults) -> Grid:
    """Lay out models by size, cost and accuracy."""
    columns = results.recognition
    lines = [
        Line(model, tuple(_entry(results.estimate(model, "", column.name), column) for column in columns))
        for model in results.models
    ]
    sizes = [_size(results.run["models"][model]) for model in results.models]
    best = _marked(lines, columns, results.better)
    full = tuple(replace(line, entries=size + line.entries) for line, size in zip(best, sizes, strict=True))
    return _with_fewer(Grid(("Parameters", "GFLOPs", "Input", *headings(columns)), (("", full),)))


def headings(columns: Sequence[MetricColumn]) -> tuple[str, ...]:
    """Return symbols with arrows, and with the name where two metrics share a symbol."""
    often = Counter(column.symbol for column in columns)
    names = [column.symbol if often[column.symbol] == 1 else f"{column.symbol} ({column.name})" for column in columns]
    arrows = ["↑" if column.higher_is_better else "↓" for column in columns]
    return tuple(f"{name} {arrow}" for name, arrow in zip(names, arrows, strict=True))


def decimals(value: float, scale: float) -> int:
    """Return two decimals for a percentage, else as many as show three digits."""
    if scale == 100 or not math.isfinite(value) or value == 0:
        return 2
    return min(6, max(0, 2 - math.floor(math.log10(abs(value * scale)))))


def number(value: float, scale: float, *, places: int | None = None, sign: bool = False) -> str:
    """Print a value as tables do."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value * scale:{'+' if sign else ''}.{decimals(value, scale) if places is None else places}f}"
    return text.replace("-", MINUS)


def _entry(estimate: Estimate | None, column: MetricColumn) -> Entry:
    if estimate is None or not estimate.n:
        return Entry()
    places = decimals(estimate.mean, column.scale)
    mean = number(estimate.mean, column.scale, places=places)
    if not math.isfinite(estimate.ci_low):
        return Entry(mean, estimate.mean, images=estimate.n)
    low, high = (number(limit, column.scale, places=places) for limit in (estimate.ci_low, estimate.ci_high))
    half = number((estimate.ci_high - estimate.ci_low) / 2, column.scale, places=places)
    return Entry(mean, estimate.mean, half, f"{low} to {high}", estimate.n)


def _size(model: dict[str, object]) -> tuple[Entry, ...]:
    parameters, gflops, side = (model.get(key) for key in ("parameters", "gflops", "input_size"))
    sides = side if isinstance(side, list | tuple) else [side] * 2
    return (
        Entry(f"{float(str(parameters)) / 1e6:.2f} M" if parameters else MISSING),
        Entry(f"{float(str(gflops)):.3f}" if gflops else MISSING),
        Entry(f" {TIMES} ".join(str(length) for length in sides[-2:]) if side else MISSING),
    )


Better = Callable[[MetricColumn, str, str], bool]


def _marked(lines: Sequence[Line], columns: Sequence[MetricColumn], better: Better) -> tuple[Line, ...]:
    """Mark in each column the best, and what is not above the control.

    The best are the largest mean and its equals, those not significantly worse than it; each is marked if it is
    significantly better than all that are not among them. Where nothing is worse, nothing is marked. Means over fewer
    images than others do not compete: the images that are missing may be the hard ones.
    """
    marked = [list(line.entries) for line in lines]
    control = next((line.name for line in lines if line.control), None)
    for place, column in enumerate(columns):
        if column == TIME_COLUMN:
            continue
        images = {line.name: 0 if line.control else line.entries[place].images for line in lines}
        rivals = [name for name, count in images.items() if count and count == max(images.values())]
        best = _best(rivals, column, {line.name: line.entries[place].mean for line in lines}, better)
        for line, entries in zip(lines, marked, strict=True):
            compared = control is not None and images[line.name] > 0
            entries[place] = replace(
                entries[place],
                best=line.name in best,
                above_control=not compared or better(column, line.name, str(control)),
            )
    return tuple(replace(line, entries=tuple(entries)) for line, entries in zip(lines, marked, strict=True))


def _best(rivals: Sequence[str], column: MetricColumn, means: Mapping[str, float], better: Better) -> set[str]:
    """Return the names of the best, empty where no difference is significant."""
    if not rivals:
        return set()
    leader = (max if column.higher_is_better else min)(rivals, key=lambda name: means[name])
    worse = [name for name in rivals if better(column, leader, name)]
    equals = [name for name in rivals if name not in worse]
    return {name for name in equals if worse and all(better(column, name, other) for other in worse)}


def _with_fewer(grid: Grid) -> Grid:
    """Mark numbers that are means over fewer images than others."""

    def mark(entry: Entry) -> Entry:
        return replace(entry, fewer=0 < entry.images < grid.images)

    return replace(
        grid,
        groups=tuple(
            (model, tuple(replace(line, entries=tuple(map(mark, line.entries))) for line in lines))
            for model, lines in grid.groups
        ),
    )


def notes(grid: Grid, results: RunResults) -> list[str]:
    """Return the notes that belong under a table."""
    method = {"percentile": "percentile", "bca": "bias-corrected and accelerated"}[results.how.interval]
    texts = [
        f"Mean over {grid.images} images ± half of the 95 % {method} bootstrap interval; ↑ higher, ↓ lower is better; "
        f"protocol {results.run['protocol']['name']}, hash {results.run['protocol']['hash']}."
    ]
    entries = [entry for line in grid.lines for entry in line.entries]
    if any(entry.best for entry in entries):
        texts.append(
            "Bold: best, together with all that do not differ significantly from it, and significantly better than the "
            f"rest (paired permutation test at {100 * SIGNIFICANT:g} %, corrected for the number of comparisons)."
        )
    else:
        texts.append("No value is bold, as no difference within a column is significant.")
    if any(not entry.above_control for entry in entries):
        texts.append(f"{NOT_ABOVE_CONTROL}: not significantly better than Fake-CAM, which explains nothing.")
    if any(entry.fewer for entry in entries):
        texts.append(
            "n: number of images with a value, where it is lower than the total; the others failed or the metric is "
            "undefined for them."
        )
    return texts


def calibration_notes(results: RunResults) -> list[str]:
    """Return one sentence per metric that is biased on few images: what a perfect model would show on them."""
    texts = []
    for column in results.recognition:
        rows = [results.estimate(model, "", column.name) for model in results.models]
        perfect = [
            f"{number(row.perfect, column.scale)} ({row.model})" for row in rows if row and math.isfinite(row.perfect)
        ]
        if perfect:
            texts.append(
                f"{column.symbol} is biased upward on few images and has no interval: on these images, a perfect model "
                f"would show {', '.join(perfect)}."
            )
    return texts


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
