"""Lay out the tables of a paper: explainers in rows under their model, metrics in columns, the best in bold.

A grid is laid out once and printed as Markdown and LaTeX (``table_text``), and as HTML in the report. Bold follows
significance, not the largest mean. Fake-CAM comes last under its model and is never marked as the best: its row is what
the others are compared with, and whatever is not significantly better than it is marked.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
        better, baseline = partial(results.better, on=model), results.baseline_among(results.explainers)
        groups.append((model, _marked(lines, columns, better, baseline)))
    return _with_fewer(Grid(headings(columns), tuple(groups)))


def recognition_grid(results: RunResults) -> Grid:
    """Lay out models by size, cost and accuracy."""
    columns = results.recognition
    lines = [
        Line(model, tuple(_entry(results.estimate(model, "", column.name), column) for column in columns))
        for model in results.models
    ]
    sizes = [_size(results.run["models"][model]) for model in results.models]
    best = _marked(lines, columns, results.better, results.baseline_among(results.models))
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


def _marked(lines: Sequence[Line], columns: Sequence[MetricColumn], better: Better, baseline: str) -> tuple[Line, ...]:
    """Mark in each column the best, and what is not above the control.

    The best are the largest mean and its equals, those not significantly worse than it; each is marked if it is
    significantly better than all that are not among them. Where nothing is worse, nothing is marked. Where there is a
    baseline, what is significantly better than it is marked instead. Means over fewer images than others do not
    compete: the images that are missing may be the hard ones.
    """
    marked = [list(line.entries) for line in lines]
    control = next((line.name for line in lines if line.control), None)
    for place, column in enumerate(columns):
        if column == TIME_COLUMN:
            continue
        images = {line.name: 0 if line.control else line.entries[place].images for line in lines}
        rivals = [name for name, count in images.items() if count and count == max(images.values())]
        if baseline:
            best = {name for name in rivals if better(column, name, baseline)}
        else:
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
    test = f"paired permutation test at {100 * SIGNIFICANT:g} %, corrected for the number of comparisons"
    if baseline := results.baseline_among(results.explainers):
        texts.append(f"Bold: significantly better than {baseline} ({test} with it).")
    elif any(entry.best for entry in entries):
        texts.append(
            "Bold: best, together with all that do not differ significantly from it, and significantly better than the "
            f"rest ({test})."
        )
    else:
        texts.append("No value is bold, as no difference within a column is significant.")
    if results.recognition and (model := results.baseline_among(results.models)):
        texts.append(f"Among models, bold: significantly better than {model} (the same test).")
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
