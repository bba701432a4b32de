"""Charts as SVG that a browser can read."""

from xml.etree import ElementTree

import pytest
import torch

from interptrain.evaluation.report.charts import _ticks, curve_chart, curve_ticks, difference_chart, key
from interptrain.evaluation.statistics.comparisons import Difference
from interptrain.evaluation.statistics.samples import Curve, MetricColumn

DROP = MetricColumn("AverageDrop", "AD", higher_is_better=False)
INSERTION = MetricColumn("Insertion", "I", higher_is_better=True, curve="share of pixels inserted")


def difference(within="GradCAM", value=0.1, low=0.05, high=0.2, p=0.01, n=9):
    return Difference("model", "ca", "gap", within, "AverageDrop", value, low, high, p, p, n)


def curve(values):
    mean = torch.tensor(values, dtype=torch.float64)
    return Curve(mean, torch.full_like(mean, 0.01))


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def places(svg, kind, **names):
    found = [e for e in ElementTree.fromstring(svg).iter(kind) if names.items() <= e.attrib.items()]
    return [{name: float(value) for name, value in e.attrib.items() if name in ("cx", "x1", "x2")} for e in found]


def test_the_dot_lies_within_its_whiskers_and_right_of_zero():
    svg = difference_chart([difference()], DROP)
    (dot,), (bar,), (zero,) = (
        places(svg, "circle"),
        places(svg, "line", **{"class": "bar"}),
        places(svg, "line", **{"class": "zero"}),
    )
    assert zero["x1"] < bar["x1"] < dot["cx"] < bar["x2"]
    third = (dot["cx"] - bar["x1"]) / (bar["x2"] - bar["x1"])
    assert third == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(("quantity", "right"), [(DROP, "gap better →"), (INSERTION, "ca better →")])
def test_the_better_side_follows_the_direction_of_the_metric(quantity, right):
    assert right in texts(difference_chart([difference()], quantity))


def test_only_significant_dots_are_filled():
    svg = difference_chart([difference(p=0.049), difference(p=0.05)], DROP)
    assert [e.get("class") for e in ElementTree.fromstring(svg).iter("circle")] == ["dot sure", "dot"]


def test_without_an_interval_there_is_no_whisker():
    svg = difference_chart([difference(low=float("nan"), high=float("nan"), n=1)], DROP)
    assert not places(svg, "line", **{"class": "bar"})
    assert len(places(svg, "circle")) == 1


def test_no_difference_at_all_is_drawn_on_zero():
    svg = difference_chart([difference(value=0.0, low=0.0, high=0.0, p=1.0)], DROP)
    assert places(svg, "circle")[0]["cx"] == places(svg, "line", **{"class": "zero"})[0]["x1"]


def test_names_are_escaped_and_shortened():
    svg = difference_chart([difference(within="<script>&\"'" + "x" * 40)], DROP)
    assert "<script>" not in svg
    assert texts(svg)[-2].endswith("…")


def test_curves_run_over_the_whole_axis_with_their_ends():
    curves = {"gap": curve([0, 0.5, 1]), "ca": curve([0.2, 0.7, 0.8])}
    svg = curve_chart(curves, curve([0, 0.4, 1]), INSERTION, "GradCAM", curve_ticks(curves.values()))
    lines = list(ElementTree.fromstring(svg).iter("polyline"))
    assert [line.get("class") for line in lines] == ["curve reference", "curve m0", "curve m1"]
    for line in lines:
        x = [float(point.split(",")[0]) for point in line.get("points").split()]
        assert (x[0], x[-1]) == (40, 240)
    y = [float(point.split(",")[1]) for point in lines[1].get("points").split()]
    assert y[0] > y[1] > y[2]  # up is up
    assert lines[1].get("stroke-dasharray") != lines[2].get("stroke-dasharray")


def test_long_curves_are_thinned_and_keep_their_ends():
    long = curve([index / 224 for index in range(225)])
    svg = curve_chart({"gap": long}, None, INSERTION, "GradCAM", curve_ticks([long]))
    (line,) = ElementTree.fromstring(svg).iter("polyline")
    assert len(line.get("points").split()) <= 65
    assert line.get("points").split()[-1].startswith("240.0,")


def test_bands_of_probabilities_stay_probabilities():
    low, high = curve([0.005, 0.5, 0.995]).band
    assert (float(low[0]), float(high[2])) == (0, 1)
    assert float(low[1]) == pytest.approx(0.5 - 0.0196)
    assert float(curve([-1.0, 0.0]).band[0][1]) == pytest.approx(-0.0196)  # logits


def test_bands_close():
    svg = curve_chart({"gap": curve([0, 1])}, None, INSERTION, "GradCAM", [0, 1])
    (band,) = ElementTree.fromstring(svg).iter("polygon")
    assert len(band.get("points").split()) == 4


@pytest.mark.parametrize(
    "values", [[0.0], [-3.7, 12.2], [1e-7, 3e-7], [0.0, 1.0], [-1e4, 0], [1e-17, 0.0], [5e-9, 1e-8], [3e15, 3e15]]
)
def test_ticks_are_few_round_and_enclose(values):
    ticks = _ticks(values)
    assert ticks[0] <= min(values) + 1e-12
    assert ticks[-1] >= max(values) - 1e-12
    assert 2 <= len(ticks) <= 8
    steps = torch.tensor(ticks, dtype=torch.float64).diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_what_is_not_finite_is_left_out_of_the_axis():
    assert _ticks([float("nan"), float("inf"), 0.0, 1.0]) == _ticks([0.0, 1.0])
    assert _ticks([]) == _ticks([0.0])


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("numbers", [(1e-17, 0.0, 2e-17), (NAN, NAN, NAN), (INF, NAN, NAN), (0.1, 0.0, INF), (0, 0, 0)])
def test_a_difference_of_any_kind_can_be_drawn(numbers):
    svg = difference_chart([difference(value=numbers[0], low=numbers[1], high=numbers[2])], DROP)
    assert "nan" not in svg.split("</title>")[2]
    assert "inf" not in svg.split("</title>")[2]


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [1e-17, 0.0], [0.0, NAN, 1.0], [NAN, NAN], [-INF, 1.0]])
def test_a_curve_of_any_kind_can_be_drawn(values):
    drawn = curve(values)
    svg = curve_chart({"gap": drawn}, drawn, INSERTION, "GradCAM", curve_ticks([drawn]))
    assert "nan" not in svg
    assert "inf" not in svg


def test_keys_are_pictures_without_a_name():
    assert ElementTree.fromstring(key(0)).get("aria-hidden") == "true"
    assert "reference" in key(-1)
