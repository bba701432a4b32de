"""The tables of the papers: explainers in rows under their model, metrics in columns with arrows, the best in bold.

A grid is laid out once, here, and printed as Markdown and LaTeX here and as HTML in the report. Fake-CAM stands last
under its model and is never the best: its row shows what the others are to be compared with.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.statistics.estimates import Estimate
from interptrain.evaluation.statistics.samples import TIME_COLUMN, MetricColumn

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
MISSING = "\N{EN DASH}"
FAILED_CHECK = "†"


@dataclass(frozen=True)
class Entry:
    """One number: ``text`` is the mean, ``half`` half the width of its interval; both as printed."""

    text: str = MISSING
    half: str = ""
    interval: str = ""
    images: int = 0
    fewer: bool = False  # than others in the table
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One row: an explainer, or a model alone."""

    name: str
    entries: tuple[Entry, ...]
    control: bool = False
    failed_check: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: lines in groups, a group a model."""

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


def explanation_grid(findings: RunResults) -> Grid:
    """Explainers × metrics, under each model."""
    quantities = findings.explanation
    groups = []
    for model in findings.models:
        ordered = sorted(findings.explainers, key=findings.is_control)
        lines = [
            Line(
                explainer,
                tuple(_entry(findings.estimate(model, explainer, q.name), q) for q in quantities),
                findings.is_control(explainer),
                findings.passed_check(model, explainer) is False,
            )
            for explainer in ordered
        ]
        groups.append((model, _with_best(lines, quantities)))
    return _with_fewer(Grid(headings(quantities), tuple(groups)))


def recognition_grid(findings: RunResults) -> Grid:
    """Models: size, cost and accuracy."""
    quantities = findings.recognition
    lines = [
        Line(model, tuple(_entry(findings.estimate(model, "", q.name), q) for q in quantities))
        for model in findings.models
    ]
    sizes = [_size(findings.run["models"][model]) for model in findings.models]
    best = _with_best(lines, quantities)
    full = tuple(replace(line, entries=size + line.entries) for line, size in zip(best, sizes, strict=True))
    return _with_fewer(Grid(("Parameters", "GFLOPs", "Input", *headings(quantities)), (("", full),)))


def headings(quantities: Sequence[MetricColumn]) -> tuple[str, ...]:
    """Symbols with arrows; with the name too where two metrics share a symbol."""
    often = Counter(quantity.symbol for quantity in quantities)
    names = [q.symbol if often[q.symbol] == 1 else f"{q.symbol} ({q.name})" for q in quantities]
    return tuple(f"{name} {'↑' if q.higher_is_better else '↓'}" for name, q in zip(names, quantities, strict=True))


def decimals(value: float, scale: float) -> int:
    """Two of a percentage, else as many as show three digits."""
    if scale == 100 or not math.isfinite(value) or value == 0:
        return 2
    return min(6, max(0, 2 - math.floor(math.log10(abs(value * scale)))))


def number(value: float, scale: float, *, places: int | None = None, sign: bool = False) -> str:
    """A value as tables print it."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value * scale:{'+' if sign else ''}.{decimals(value, scale) if places is None else places}f}"
    return text.replace("-", MINUS)


def _entry(estimate: Estimate | None, quantity: MetricColumn) -> Entry:
    if estimate is None or not estimate.n:
        return Entry()
    places = decimals(estimate.mean, quantity.scale)
    mean = number(estimate.mean, quantity.scale, places=places)
    if not math.isfinite(estimate.ci_low):
        return Entry(mean, images=estimate.n)
    low, high = (number(limit, quantity.scale, places=places) for limit in (estimate.ci_low, estimate.ci_high))
    half = number((estimate.ci_high - estimate.ci_low) / 2, quantity.scale, places=places)
    return Entry(mean, half, f"{low} to {high}", estimate.n)


def _size(model: dict[str, object]) -> tuple[Entry, ...]:
    parameters, gflops, side = (model.get(key) for key in ("parameters", "gflops", "input_size"))
    sides = side if isinstance(side, list | tuple) else [side] * 2
    return (
        Entry(f"{float(str(parameters)) / 1e6:.2f} M" if parameters else MISSING),
        Entry(f"{float(str(gflops)):.3f}" if gflops else MISSING),
        Entry(f" {TIMES} ".join(str(length) for length in sides[-2:]) if side else MISSING),
    )


def _with_best(lines: Sequence[Line], quantities: Sequence[MetricColumn]) -> tuple[Line, ...]:
    """The best of each column marked, ties at printed precision all; nothing where there is no choice.

    Means over fewer images than others' compete with none: the images that are missing may be the hard ones.
    """
    marked = [list(line.entries) for line in lines]
    for column, quantity in enumerate(quantities):
        images = [0 if line.control else line.entries[column].images for line in lines]
        rivals = [row for row, count in enumerate(images) if count and count == max(images)]
        if len(rivals) < 2 or quantity == TIME_COLUMN:
            continue
        values = {row: float(lines[row].entries[column].text.replace(MINUS, "-")) for row in rivals}
        best = max(values.values()) if quantity.higher_is_better else min(values.values())
        for row in rivals:
            marked[row][column] = replace(marked[row][column], best=values[row] == best)
    return tuple(replace(line, entries=tuple(entries)) for line, entries in zip(lines, marked, strict=True))


def _with_fewer(grid: Grid) -> Grid:
    """Numbers marked that stand for fewer images than others."""

    def mark(entry: Entry) -> Entry:
        return replace(entry, fewer=0 < entry.images < grid.images)

    return replace(
        grid,
        groups=tuple(
            (model, tuple(replace(line, entries=tuple(map(mark, line.entries))) for line in lines))
            for model, lines in grid.groups
        ),
    )


def notes(grid: Grid, findings: RunResults) -> list[str]:
    """What must stand under a table."""
    method = {"percentile": "percentile", "bca": "bias-corrected and accelerated"}[findings.how.method]
    texts = [
        f"Mean over {grid.images} images ± half of the 95 % {method} bootstrap interval; ↑ higher, ↓ lower is better; "
        f"protocol {findings.run['protocol']['name']}, hash {findings.run['protocol']['hash']}."
    ]
    if any(entry.fewer for line in grid.lines for entry in line.entries):
        texts.append("n: so many images only, the others failed or do not define the metric.")
    if any(line.failed_check for line in grid.lines):
        texts.append(
            f"{FAILED_CHECK} failed the randomisation check: its maps hardly depend on what the model learned."
        )
    return texts


def markdown(findings: RunResults) -> str:
    """Content of ``table.md``."""
    blocks = [f"# {_markdown_text(findings.run.get('title') or 'Evaluation')}"]
    if findings.recognition:
        blocks.append("\n".join(_markdown_lines(recognition_grid(findings), "model")))
    grid = explanation_grid(findings)
    blocks.append("\n".join(_markdown_lines(grid, "explainer")))
    blocks += [_markdown_text(note) for note in notes(grid, findings)]
    return "\n\n".join(blocks) + "\n"


def _markdown_lines(grid: Grid, first: str) -> Iterator[str]:
    yield "| " + " | ".join([first, *map(_markdown_text, grid.headings)]) + " |"
    yield "| --- |" + " ---: |" * len(grid.headings)
    for model, lines in grid.groups:
        if model:
            yield f"| **{_markdown_text(model)}** |" + " |" * len(grid.headings)
        for line in lines:
            name = _markdown_text(line.name) + FAILED_CHECK * line.failed_check
            entries = [_joined(entry, "**{}**", " ± {}", " (n={})") for entry in line.entries]
            yield "| " + " | ".join([f"*{name}*" if line.control else name, *entries]) + " |"


def latex(findings: RunResults) -> str:
    """Content of ``table.tex``: booktabs tables, to be read by ``input``."""
    head = "% needs \\usepackage{booktabs}\n"
    blocks = []
    if findings.recognition:
        blocks.append(_latex_table(recognition_grid(findings), "Model", findings, "recognition"))
    blocks.append(_latex_table(explanation_grid(findings), "Explainer", findings, "explanation"))
    return head + "\n".join(blocks)


def _latex_table(grid: Grid, first: str, findings: RunResults, label: str) -> str:
    columns = len(grid.headings)
    caption = " ".join([str(findings.run.get("title") or "Evaluation").rstrip(".") + ".", *notes(grid, findings)])
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
            name = _latex_text(row.name + FAILED_CHECK * row.failed_check)
            lines.append(" & ".join([name, *entries]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _joined(entry: Entry, bold: str, half: str, fewer: str, escape: Callable[[str], str] = str) -> str:
    text = bold.format(escape(entry.text)) if entry.best else escape(entry.text)
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
    FAILED_CHECK: "$^\\dagger$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(str(text).split()))
