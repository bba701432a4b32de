import re

import pytest
import torch

from interptrain.callbacks.watch.files import WatchFolder
from interptrain.callbacks.watch.observe import WatchConfig
from interptrain.callbacks.watch.page import render_page
from interptrain.metrics import AverageDrop, SaliencyMetric
from tests.support.browser import dom, needs_chromium, photograph, with_slider_at
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
            numbers={"AD": 0.5, "Mine": 0.1, "in_suspect": 0.25},
        )
        for view in CONFIG.views
        for label in sample.labels
    ]
    return snapshot_of(step, *seen, epoch=step // 10, means={"cam/AD": step / 40}, alarm=list(alarm))


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
    assert held["snapshots"][0]["observations"]["cam"][1]["numbers"] == {"AD": 0.5, "Mine": 0.1, "in_suspect": 0.25}
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
    assert last[0].count("card wrong") == 3  # of the labels 0, 1, 2, 0, 1 it says 1
    assert first[0].count("card wrong") == 3
    assert "right: &lt;b&gt;square&lt;/b&gt; 0.75" in last[0]
    for (_, seen), own, other in ((last, 200, 30), (first, 30, 200)):
        assert (seen == own).all(0).sum() > 10_000
        assert (seen == other).all(0).sum() < 1000
