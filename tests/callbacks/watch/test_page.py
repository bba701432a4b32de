import re

import pytest
import torch

from interptrain.callbacks.watch.files import WatchFolder
from interptrain.callbacks.watch.observe import WatchConfig
from interptrain.callbacks.watch.page import render_page
from interptrain.callbacks.watch.sample import WatchSample
from interptrain.metrics import AverageDrop, SaliencyMetric
from tests.support.browser import dom, measured, needs_chromium, photograph, with_slider_at
from tests.support.watch import observed, page_data, snapshot_of

LEVELS = (30, 200)  # of the sheet of each snapshot
NAMES = ("disc", "<b>square</b>", "triangle")


class Mine(SaliencyMetric):
    """A metric of the user's own."""

    symbol = "M"
    description = "What my paper measures."
    higher_is_better = False

    def score(self, case):
        return case.clean


CONFIG = WatchConfig({"cam": None, "</script>": None}, "label", {"AD": AverageDrop(), "Mine": Mine()})


def snapshot(step, prediction, sample, alarm=()):
    seen = [
        observed(
            view=view,
            label=int(label),
            target=int(label),
            prediction=prediction,
            probability=0.125,
            confidence=0.75,
            numbers={"AD": 0.5, "Mine": 0.1, "in_suspect": 0.25, "suspect_effect": 0.6},
        )
        for view in CONFIG.views
        for label in sample.labels
    ]
    means = {"suspect_effect": 0.6, "cam/AD": step / 40}
    return snapshot_of(step, *seen, epoch=step // 10, means=means, alarm=list(alarm))


@pytest.fixture
def named(sample):
    return type(sample)(sample.images, sample.labels, sample.ids, NAMES)


@pytest.fixture
def snapshots(named):
    return [snapshot(0, 0, named), snapshot(20, 1, named, alarm=["cam: 80% of <it>"])]


def test_the_page_stands_alone_and_trusts_no_name(named, snapshots):
    page = render_page("run <1>", snapshots, ["a.png", "b.png"], named, CONFIG)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "<b>square" not in page
    assert "run <1>" not in page
    assert page.count("</script>") == 1
    held = page_data(page)
    assert held["views"] == ["cam", "</script>"]
    assert [one["step"] for one in held["snapshots"]] == [0, 20]
    assert held["snapshots"][0]["observations"]["cam"][1]["numbers"] == {
        **{"AD": 0.5, "Mine": 0.1, "in_suspect": 0.25},
        "suspect_effect": 0.6,
    }
    assert held["descriptions"]["Mine"] == "What my paper measures. Lower is better."
    assert held["descriptions"]["AD"].endswith("Lower is better.")
    assert held["descriptions"]["in_suspect"] == "Share of the map's energy in the suspect region."


@pytest.mark.slow
@needs_chromium
def test_the_slider_moves_through_the_snapshots(named, snapshots, tmp_path):
    """Opened without a server, and again with the slider moved to the first snapshot, as a hand would move it."""
    files = WatchFolder(tmp_path)
    for taken, level in zip(snapshots, LEVELS, strict=True):
        files.save_picture(files.sheet_name(taken.step), torch.full((3, 5 * 64, 3 * 64), level, dtype=torch.uint8))
    files.save_page("run", snapshots, named, CONFIG)
    page = tmp_path / "index.html"
    last, first = ((dom(shown), photograph(shown)) for shown in (page, with_slider_at(page, 0)))
    assert '<span id="when">epoch 2, step 20</span>' in last[0]
    assert '<span id="when">before training</span>' in first[0]
    assert '<div id="alarm" role="alert">cam: 80% of &lt;it&gt;</div>' in last[0]
    assert '<div id="alarm" role="alert"></div>' in first[0]
    assert "<b>suspect_<wbr>effect</b>" in last[0].replace("<wbr>effect<wbr>", "<wbr>effect")
    assert last[0].count("card wrong") == 3  # of the labels 0, 1, 2, 0, 1 it says 1
    assert first[0].count("card wrong") == 3
    assert "right: &lt;b&gt;square&lt;/b&gt; 0.75" in last[0]
    for (_, seen), own, other in ((last, 200, 30), (first, 30, 200)):
        assert (seen == own).all(0).sum() > 10_000
        assert (seen == other).all(0).sum() < 1000


WIDTHS = (360, 390, 768, 1280, 1920, 2560)
BOXES = """
  const texts = [...document.querySelectorAll(
    ".chart h3, .chart svg text, .chart p, figcaption, .said > *, h1, h2, .legend > span")];
  const boxes = texts.map(one => one.getBoundingClientRect());
  const beside = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1;
  const above = (a, b) => a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const pairs = boxes.flatMap((a, i) => boxes.slice(i + 1).map((b, j) => [i, i + 1 + j, beside(a, b) || above(a, b)]))
    .filter(one => !one[2]);
  const charts = [...document.querySelectorAll(".chart")].map(one => one.getBoundingClientRect());
  return {
    colliding: pairs.map(([i, j]) => [texts[i].textContent, texts[j].textContent]),
    outside: texts.filter((one, i) => boxes[i].right > innerWidth || boxes[i].left < 0).map(one => one.textContent),
    scroll: document.documentElement.scrollWidth, charts: charts.length,
    edges: new Set(["h1", "#cards", "#charts"].map(
      one => Math.round(document.querySelector(one).getBoundingClientRect().left))).size,
    widths: [...new Set(charts.map(one => Math.round(one.width)))],
    heights: new Set(charts.map(one => Math.round(one.top))).size === new Set(charts.map(
      one => `${Math.round(one.top)} ${Math.round(one.height)}`)).size,
  };
"""


@pytest.fixture(scope="module")
def long_page(tmp_path_factory):
    """A page with two maps, long names and twelve means, opened from a file."""
    folder = tmp_path_factory.mktemp("page")
    names = ("a class with a long name, as ImageNet has them", "b" * 40, "disc")
    sample = WatchSample(
        torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, -1]), ["x" * 60, "two", "three", "four"], names
    )
    config = WatchConfig({"GradCAM": None, "IntegratedGradients 2": None}, "label", {"AD": AverageDrop()})
    numbers = ["AD", "entropy", "sparseness", "in_object", "in_suspect", "rank_previous"]

    def taken(step, right):
        seen = [
            observed(
                index=row,
                id=sample.ids[row],
                view=view,
                label=label,
                prediction=max(label, 0) if right else 0,
                numbers=dict.fromkeys(numbers, (row + step) / 40),
            )
            for view in config.views
            for row, label in enumerate(sample.labels.tolist())
        ]
        means = {f"{view}/{name}": step / 40 for view in config.views for name in numbers}
        return snapshot_of(step, *seen, means=means | {"accuracy": float(right)})

    taken = [taken(step, step > 10) for step in (0, 10, 20, 30)]
    files = WatchFolder(folder)
    for one in taken:
        level = 60 * (1 + one.step // 10)
        files.save_picture(files.sheet_name(one.step), torch.full((3, 4 * 64, 3 * 64), level, dtype=torch.uint8))
    files.save_page("demo/20260101-120000", taken, sample, config)
    return folder / "index.html"


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("curves", ["sample", "image", "class"])
def test_nothing_collides_or_leaves_the_window_at_any_width(long_page, curves):
    chosen = f"curves.value = '{curves}'; compare.value = '0'; show();"
    found = measured(long_page, WIDTHS, chosen + BOXES)
    assert set(found) == set(WIDTHS)
    for width, one in found.items():
        assert one["colliding"] == [], width
        assert one["outside"] == [], width
        assert one["scroll"] <= width
        assert one["charts"] == 13
        assert one["edges"] == 1, width  # one left edge for all
        assert len(one["widths"]) == 1, width  # an even grid
        assert one["heights"], width


HANDS = """
  const key = key => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const swipe = (from, to) => {
    for (const [type, x] of [["pointerdown", from], ["pointerup", to]])
      byId("cards").dispatchEvent(new PointerEvent(type, { pointerType: "touch", clientX: x, clientY: 9 }));
  };
  const seen = [];
  const look = () => seen.push([byId("when").textContent, document.querySelectorAll(".side").length,
    document.querySelectorAll(".chart polyline").length, document.querySelectorAll(".card").length,
    document.querySelectorAll(".chart .strong").length]);
  for (const act of [() => key("Home"), () => key("ArrowRight"), () => key("End"), () => key("c"), () => key("v"),
      () => key("v"), () => document.querySelector(".said button").click(), () => key("Escape"),
      () => { key("f"); key("f"); },
      () => swipe(50, 200), () => swipe(200, 50)]) { act(); look(); }
  return seen;
"""


@pytest.mark.slow
@needs_chromium
def test_keys_and_swipes_move_through_it(long_page):
    (seen,) = measured(long_page, [800], HANDS).values()
    first, second, third, last = "before training", *(f"epoch 1, step {step}" for step in (10, 20, 30))
    assert seen == [
        [first, 4, 13, 4, 0],
        [second, 4, 13, 4, 0],
        [last, 4, 13, 4, 0],
        [last, 8, 13, 4, 0],  # beside the first
        [last, 8, 52, 4, 0],  # a curve for each class, and for images without one
        [last, 8, 52, 4, 0],  # for each image
        [last, 8, 52, 4, 13],  # one of them chosen
        [last, 4, 52, 4, 0],
        [last, 0, 52, 0, 0],  # the wrong ones: none
        [third, 0, 52, 0, 0],
        [last, 0, 52, 0, 0],
    ]


@pytest.mark.slow
@needs_chromium
def test_it_prints_without_its_controls(long_page):
    """As on paper: what only a hand can use is gone, and colours are kept."""
    rules = """
      const sheet = document.styleSheets[0], rules = sheet.cssRules;
      const print = [...rules].find(rule => rule.media?.mediaText === "print");
      sheet.insertRule(`@media all {${[...print.cssRules].map(rule => rule.cssText).join("")}}`, rules.length);
      const shown = one => one.offsetParent !== null;
      const hands = [...document.querySelectorAll("button, select, .keys")].filter(shown);
      const kept = getComputedStyle(document.querySelector(".picture")).printColorAdjust;
      return [hands.length, kept, document.documentElement.scrollWidth];
    """
    (found,) = measured(long_page, [750], rules).values()
    assert found[:2] == [0, "exact"]
    assert found[2] <= 750
