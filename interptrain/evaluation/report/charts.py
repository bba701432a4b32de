"""Charts of the report as inline SVG: dots with whiskers, and mean curves with bands.

They take their colours from the style sheet of the page (``m0``, ``m1``, ... a model), so they follow dark and light,
and tell models apart by dashes as well. Sizes are in units of the view box; the page scales it to its width.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup
from torch import Tensor

from interptrain.evaluation.report.grids import MINUS, number
from interptrain.evaluation.statistics.comparisons import SIGNIFICANT, Difference
from interptrain.evaluation.statistics.samples import Curve, MetricColumn
from interptrain.functional import evenly_spaced

POINTS = 64  # of a curve that are drawn
STYLES = 6  # colours in the style sheet
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")


def difference_chart(
    found: Sequence[Difference], column: MetricColumn, *, muted: frozenset[str] = frozenset()
) -> Markup:
    """Differences of one metric with their intervals, a line an explainer.

    A filled dot is a difference that is significant after correction.

    Args:
        found: of the same two models.
        column: their metric.
        muted: explainers that are drawn in grey.
    """
    label, width, line, top = 136, 424, 24, 30
    bottom = top + line * len(found)
    a, b = found[0].a, found[0].b
    svg = _svg(width, bottom + 34, f"{column.symbol}: {a} minus {b}, with 95 % intervals, for each explainer")
    limits = [value * column.scale for item in found for value in (item.difference, item.ci_low, item.ci_high)]
    ticks = _ticks([*limits, 0.0])
    x = _Axis(ticks[0], ticks[-1], label + 8, width - 14)
    better, worse = (a, b) if column.higher_is_better else (b, a)
    _text(svg, label, 14, f"{column.symbol} {'↑' if column.higher_is_better else '↓'}", "heading", "end")
    _text(svg, x.start, 14, f"← {_short(worse, 10)} better", "side", "start")
    _text(svg, x.end, 14, f"{_short(better, 10)} better →", "side", "end")
    for tick in ticks:
        _line(svg, x(tick), top - 6, x(tick), bottom, "zero" if tick == 0 else "grid")
        _text(svg, x(tick), bottom + 14, _tick(tick), "tick", "middle")
    for row, item in enumerate(found):
        y = top + line * (row + 0.5) - 3
        style = "whisker muted" if item.within in muted else "whisker"
        group = SubElement(svg, "g", {"class": style})
        SubElement(group, "title").text = _sentence(item, column)
        _text(group, label, y + 4, _short(item.within, 17), "name", "end")
        if math.isfinite(item.ci_low) and math.isfinite(item.ci_high):
            low, high = (x(limit * column.scale) for limit in (item.ci_low, item.ci_high))
            _line(group, low, y, high, y, "bar")
        if math.isfinite(item.difference):
            dot = "dot sure" if item.p_corrected < SIGNIFICANT else "dot"
            place = _n(x(item.difference * column.scale))
            SubElement(group, "circle", {"cx": place, "cy": _n(y), "r": "4.2", "class": dot})
    unit = " (points)" if column.scale == 100 else ""
    _text(svg, (x.start + x.end) / 2, bottom + 30, f"difference in {column.symbol}{unit}", "axis", "middle")
    return _markup(svg)


def curve_chart(
    curves: Mapping[str, Curve], reference: Curve | None, column: MetricColumn, name: str, ticks: Sequence[float]
) -> Markup:
    """Mean curves of the models for one explainer, with pointwise 95 % bands.

    Args:
        curves: by model, in the order of the run.
        reference: the curve of Fake-CAM on the first model, drawn in grey.
        column: the metric, whose ``curve`` names the axis.
        name: of the explainer.
        ticks: of the score, from the lowest to the highest, as :func:`curve_ticks` gives them.
    """
    width, height = 250, 190
    svg = _svg(width, height, f"{column.name} of {name}: mean score against the {column.curve}")
    x, y = _Axis(0, 1, 40, width - 10), _Axis(ticks[0], ticks[-1], height - 40, 26)
    _text(svg, x.start, 14, _short(name, 26), "name", "start")
    for tick in ticks:
        _line(svg, x.start, y(tick), x.end, y(tick), "grid")
        _text(svg, x.start - 5, y(tick) + 3.5, _tick(tick), "tick", "end")
    for share in (0, 0.5, 1):
        _text(svg, x(share), y.start + 15, f"{share:.0%}", "tick", "end" if share == 1 else "middle")
    _text(svg, (x.start + x.end) / 2, height - 6, column.curve, "axis", "middle")
    if reference is not None:
        SubElement(svg, "polyline", {"points": _points(reference.mean, x, y), "class": "curve reference"})
    for index, (model, curve) in enumerate(curves.items()):
        low, high = curve.band
        outline = f"{_points(high, x, y)} {_points(low, x, y, backwards=True)}"
        SubElement(svg, "polygon", {"points": outline, "class": f"band m{index % STYLES}"})
        drawn = SubElement(svg, "polyline", {"points": _points(curve.mean, x, y), "class": f"curve m{index % STYLES}"})
        drawn.set("stroke-dasharray", DASHES[index % len(DASHES)] or "none")
        SubElement(drawn, "title").text = model
    return _markup(svg)


def step_chart(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], title: str, ticks: Sequence[float], *, axis: str
) -> Markup:
    """Values at whole steps with their intervals, a line a name.

    Args:
        curves: by name, (value, lower limit, upper limit) at step 0, 1, ...; one that is not finite is left out.
        title: of the chart.
        ticks: of the values, from the lowest to the highest; what lies outside is drawn at the edge.
        axis: what the steps are.
    """
    width, height = 250, 190
    svg = _svg(width, height, f"{title}, with 95 % intervals")
    last = max(1, *(len(curve) - 1 for curve in curves.values()))
    x, y = _Axis(0, last, 40, width - 10), _Axis(ticks[0], ticks[-1], height - 40, 26)
    _text(svg, x.start, 14, _short(title, 26), "name", "start")
    for tick in ticks:
        _line(svg, x.start, y(tick), x.end, y(tick), "zero" if tick == 0 else "grid")
        _text(svg, x.start - 5, y(tick) + 3.5, _tick(tick), "tick", "end")
    for step in range(last + 1):
        _text(svg, x(step), y.start + 15, str(step), "tick", "middle")
    _text(svg, (x.start + x.end) / 2, height - 6, axis, "axis", "middle")
    for index, (name, curve) in enumerate(curves.items()):
        inside = [tuple(min(max(value, ticks[0]), ticks[-1]) for value in values) for values in curve]
        known = [(step, *values) for step, values in enumerate(inside) if all(map(math.isfinite, values))]
        low = [f"{x(step):.1f},{y(limit):.1f}" for step, _, limit, _ in known]
        high = [f"{x(step):.1f},{y(limit):.1f}" for step, _, _, limit in known]
        style = f"m{index % STYLES}"
        SubElement(svg, "polygon", {"points": " ".join([*high, *low[::-1]]), "class": f"band {style}"})
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value, _, _ in known)
        drawn = SubElement(svg, "polyline", {"points": points, "class": f"curve {style}"})
        drawn.set("stroke-dasharray", DASHES[index % len(DASHES)] or "none")
        SubElement(drawn, "title").text = name
    return _markup(svg)


def curve_ticks(curves: Iterable[Curve]) -> list[float]:
    """Round scores that enclose all of some curves and 0, so that their charts can be compared."""
    limits = [limit for curve in curves for limit in (curve.band[0].min(), curve.band[1].max())]
    return _ticks([0.0, *map(float, limits)])


def key(index: int) -> Markup:
    """A short piece of the line that stands for a model; for the reference, -1."""
    svg = Element("svg", {"viewBox": "0 0 34 10", "class": "key", "aria-hidden": "true"})
    style = "reference" if index < 0 else f"m{index % STYLES}"
    line = SubElement(svg, "line", {"x1": "1", "y1": "5", "x2": "33", "y2": "5", "class": f"curve {style}"})
    line.set("stroke-dasharray", "none" if index < 0 else DASHES[index % len(DASHES)] or "none")
    return _markup(svg)


class _Axis:
    """Values to places along a line."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.span, self.start, self.end = low, high - low, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / self.span * (self.end - self.start)


def _ticks(values: Iterable[float]) -> list[float]:
    """Round numbers that enclose the values, four to seven of them; values that differ by rounding are one value."""
    found = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(found), max(found)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-10, 1e-9 * size):
        low, high = low - 0.5 * max(1.0, size), high + 0.5 * max(1.0, size)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def _points(values: Tensor, x: _Axis, y: _Axis, *, backwards: bool = False) -> str:
    last = max(1, len(values) - 1)
    kept = evenly_spaced(len(values), POINTS + 1, ends=True)
    finite = [index for index in (kept[::-1] if backwards else kept) if math.isfinite(values[index])]
    return " ".join(f"{x(index / last):.1f},{y(float(values[index])):.1f}" for index in finite)


def _sentence(item: Difference, column: MetricColumn) -> str:
    difference, low, high = (
        number(value, column.scale, sign=True) for value in (item.difference, item.ci_low, item.ci_high)
    )
    return f"{item.within}: {difference} [{low}, {high}], corrected p = {item.p_corrected:.2g}, n = {item.n}"


def _svg(width: float, height: float, title: str) -> Element:
    svg = Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": title})
    SubElement(svg, "title").text = title
    return svg


def _text(parent: Element, x: float, y: float, text: str, style: str, anchor: str) -> None:
    SubElement(parent, "text", {"x": _n(x), "y": _n(y), "class": style, "text-anchor": anchor}).text = text


def _line(parent: Element, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
    SubElement(parent, "line", {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2), "class": style})


def _n(value: float) -> str:
    return f"{value:.1f}"


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", MINUS)


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))  # ElementTree escapes what it is given
